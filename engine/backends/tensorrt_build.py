"""ONNX files -> TensorRT engines, by the API that `tensorrt` (10, 11) and `tensorrt_rtx` share.

TensorRT-RTX builds for a GPU that is not there; TensorRT needs the one that it builds for. Networks are
strongly typed: they compute in the precision that the file says, fp32 products as TF32 where the spec allows.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.backends.base import BATCH, GraphSpec
from engine.backends.engine_file import EngineKey
from engine.errors import BackendUnavailable, WeightsError

log = logging.getLogger(__name__)
LIBRARIES = {  # name of the run time: module, what to install
    "tensorrt": ("tensorrt", "NVIDIA gives it out itself: pip install 'tensorrt-cu13>=10.13.2'"),
    "tensorrt-rtx": ("tensorrt_rtx", "pip install 'portraittalk[rtx]'"),
}
TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")  # what TensorRT-RTX builds for
BATCHES = (1, 2, 4, 8)  # streams in a step; each has a profile of its own
Progress = Callable[[int, int], None]  # steps done, and in all


def library(name: str) -> ModuleType:
    """The Python module of the run time `name`.

    Raises:
        BackendUnavailable: it is not installed, or its libraries cannot be loaded.
    """
    module, install = LIBRARIES[name]
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{name} is not installed ({error}); {install}") from error


def check_target(name: str, target: str) -> None:
    """Refuse a GPU that the run time `name` does not build for.

    Raises:
        BackendUnavailable: it is unknown to it; the message names those it knows.
    """
    if name == "tensorrt-rtx" and target not in TARGETS:
        raise BackendUnavailable(
            f"TensorRT-RTX does not build for {target}; it does for {', '.join(TARGETS)} "
            "(data-centre cards but the A100 need TensorRT itself)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How an engine is built.

    Attributes:
        runtime: "tensorrt" or "tensorrt-rtx".
        target: architecture of the GPU, such as "sm89".
        batches: rows of each profile.
        timing: file of TensorRT's timing cache, never tried yet; TensorRT-RTX measures nothing.
    """

    runtime: str
    target: str
    batches: tuple[int, ...] = BATCHES
    timing: Path | None = None

    def key(self, spec: GraphSpec, weights: str) -> EngineKey:
        """What an engine of `spec` built so is known by.

        Args:
            weights: digest of the graph's weights.
        """
        return EngineKey(
            graph=spec.name,
            weights=weights,
            target=self.target,
            library=f"{self.runtime} {library(self.runtime).__version__}",
            precision=spec.precision,
            profiles=tuple(
                " ".join(f"{n}:{low}/{usual}/{high}" for n, low, usual, high in shapes(spec, rows))
                for rows in self.batches
            ),
        )


def shapes(spec: GraphSpec, rows: int) -> list[tuple[str, Any, Any, Any]]:
    """Name, least, usual and largest shape of each input for so many rows."""
    free = {name: sizes for name, *sizes in spec.free}

    def sized(shape: Sequence[int | str], which: int) -> tuple[int, ...]:
        return tuple(
            rows if d == BATCH else free[d][which] if isinstance(d, str) else d for d in shape
        )

    return [(t.name, sized(t.shape, 0), sized(t.shape, 1), sized(t.shape, 2)) for t in spec.inputs]


def build_engine(
    spec: GraphSpec, path: Path, how: Build, progress: Progress | None = None
) -> memoryview:
    """Build the engine of the ONNX file at `path`; it has one profile a batch size, in their order.

    Raises:
        BackendUnavailable: the library is missing, or does not build for that GPU here.
        WeightsError: it cannot read the file, or the tensors are not those of `spec`.
    """
    check_target(how.runtime, how.target)
    trt = library(how.runtime)
    logger = trt_log(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise WeightsError(f"{spec.name}: {path} does not parse: {_errors(parser)}")
    have = {t.name for t in _tensors(network)}
    missing = [t.name for t in (*spec.inputs, *spec.outputs) if t.name not in have]
    if missing:
        raise WeightsError(f"{spec.name}: {path.name} lacks the tensors {missing}")
    config = builder.create_builder_config()
    if spec.precision == "f32":
        config.clear_flag(trt.BuilderFlag.TF32)
    if how.runtime == "tensorrt-rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, how.target.upper()), 0)
    for rows in how.batches:
        profile = builder.create_optimization_profile()
        for name, *sizes in shapes(spec, rows):
            profile.set_shape(name, *sizes)
        config.add_optimization_profile(profile)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    with _timing_cache(config, how.timing if how.runtime == "tensorrt" else None):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendUnavailable(
            f"{how.runtime} built no engine of {spec.name} for {how.target} (its log is above)"
        )
    return memoryview(plan)


def _strongly_typed(trt: Any) -> int:
    """Flags of a network; TensorRT 11 has no other kind, and perhaps no such flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _tensors(network: Any) -> list[Any]:
    return [
        *(network.get_input(i) for i in range(network.num_inputs)),
        *(network.get_output(i) for i in range(network.num_outputs)),
    ]


def _errors(parser: Any) -> str:
    said = (parser.get_error(i).desc() for i in range(parser.num_errors))
    return " ".join("; ".join(said).split())[:400]


@contextlib.contextmanager
def _timing_cache(config: Any, path: Path | None) -> Iterator[None]:
    """What was measured of kernels, kept from build to build; a damaged file begins anew."""
    if path is None:
        yield
        return
    kept = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(kept)
    if cache is None:
        cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    yield
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(config.get_timing_cache().serialize())
    part.replace(path)


def trt_log(trt: Any) -> Any:
    """TensorRT's log, in ours: errors and worse, but for the driver that a machine without a GPU has not."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR and "cudaError 35" not in message:
                log.error("%s", " ".join(message.split()))

    return Log()


def _monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's own progress, phases within phases, as steps of the outermost ones."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.phases: dict[str, tuple[int, int]] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.phases[name] = (0, steps)
            self._tell()

        def step_complete(self, name: str, step: int) -> bool:
            self.phases[name] = (step + 1, self.phases[name][1])
            self._tell()
            return True

        def phase_finish(self, name: str) -> None:
            self.phases[name] = (self.phases[name][1],) * 2
            self._tell()

        def _tell(self) -> None:
            progress(*(sum(side) for side in zip(*self.phases.values(), strict=True)))

    return Monitor()
