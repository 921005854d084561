"""Networks as TensorRT engines, kept where the engine finds them; those of tiny are files already."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.audio.speech_encoder import SPEECH
from engine.backends import GraphSpec
from engine.backends.engine_file import write_engine
from engine.backends.tensorrt_build import Build, build_engine
from engine.config import EngineConfig
from engine.face.detector import DETECTOR, LANDMARKS
from engine.face.lips import LIPS
from engine.face.matte import MATTE
from engine.motion.decoder import MOTION
from engine.render.specs import SPECS

TINY = (*SPECS, DETECTOR, LANDMARKS, LIPS, MATTE, SPEECH, MOTION)
Say = Callable[[str, int, int], None]  # what is done, steps of it done, and in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What became of one graph; sizes in bytes, times in seconds."""

    graph: str
    onnx: int
    difference: float | None = None  # from its module, at most; None: seen when the file was made
    export_s: float = 0.0
    engine: int = 0
    build_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is made.

    Attributes:
        engines: folder of the engines.
        build: how engines are built; None for ONNX files alone.
        onnx: folder that keeps the ONNX files of sd15; None: they go when their engines are built.
        precision: of sd15's networks, "f16" or "f32".
    """

    engines: Path
    build: Build | None
    onnx: Path | None = None
    precision: str = "f16"


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def make_tiny(config: EngineConfig, plan: Plan, say: Say) -> Iterator[Made]:
    """Build the engines of the files in the package, one after another.

    Raises:
        WeightsError, BackendUnavailable: as `build_engine`.
    """
    for spec in TINY:
        path = config.weights / f"{spec.name}.onnx"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size, seconds = keep_engine(spec, path, digest, plan, say)
        yield Made(graph=spec.name, onnx=path.stat().st_size, engine=size, build_s=seconds)


def keep_engine(
    spec: GraphSpec, path: Path, weights: str, plan: Plan, say: Say
) -> tuple[int, float]:
    """Build the engine of the file at `path` and keep it; its bytes, and the seconds it took.

    Args:
        weights: digest of the graph's weights.

    Raises:
        WeightsError, BackendUnavailable: as `build_engine`.
    """
    if plan.build is None:
        return 0, 0.0
    began = time.perf_counter()
    what = f"{spec.name}: engine for {plan.build.target}"
    built = build_engine(spec, path, plan.build, lambda done, total: say(what, done, total))
    write_engine(plan.engines, plan.build.key(spec, weights), built)
    return built.nbytes, time.perf_counter() - began
