"""CPU time of frames, in a process of its own: whichever `engine` lies on the path, run block by block.

    python benchmarks/frames_child.py PORTRAIT '{"paint_every": 1}' '{"draw_every": 4}'

with settings of the engine and the quality of the stream.

Says `ready`; then, for each number of frames that it reads, steps through so many and answers with one
JSON line: milliseconds of processor for each stage of a painted and of a carried frame, and the seconds it all took.
Imports nothing of this folder, so that it runs the engine of any commit.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from engine.avatar import AvatarEngine
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.face.image_file import decode_image
from engine.types import Quality

HOP = 640


class CpuGraph:
    """A graph that adds the processor time of its runs to `spent`."""

    def __init__(self, graph: Any, spent: dict[str, float]) -> None:
        self.spec, self._graph, self._spent = graph.spec, graph, spent

    def __call__(self, **feeds: Any) -> dict[str, Any]:
        """Run once."""
        begun = time.process_time()
        out: dict[str, Any] = self._graph(**feeds)
        self._spent[self.spec.name] += time.process_time() - begun
        return out

    def each(self, rows: Any) -> list[dict[str, Any]]:
        """Run for several streams."""
        begun = time.process_time()
        out: list[dict[str, Any]] = self._graph.each(rows)
        self._spent[self.spec.name] += time.process_time() - begun
        return out


class CpuBackend:
    """A run time whose graphs are timed."""

    def __init__(self, inner: Any, spent: dict[str, float]) -> None:
        self._inner, self.fast, self.put, self._spent = inner, inner.fast, inner.put, spent

    def load(self, spec: Any, path: Path) -> CpuGraph:
        """Load a graph whose runs are timed."""
        return CpuGraph(self._inner.load(spec, path), self._spent)


class Encoder:
    """VP8 at its fastest, as a live viewer gets it."""

    def __init__(self, height: int, width: int) -> None:
        codec = av.CodecContext.create("libvpx", "w")
        assert isinstance(codec, av.VideoCodecContext)
        codec.width, codec.height, codec.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        codec.bit_rate, codec.time_base = 1_000_000, Fraction(1, 90_000)
        codec.thread_count = 1  # as the peer library takes for a picture of this size
        codec.options = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
        self._codec, self._count = codec, 0

    def encode(self, rgb: np.ndarray) -> float:
        """Convert and encode a frame (H, W, 3); seconds of processor."""
        begun = time.process_time()
        even = np.ascontiguousarray(rgb[: self._codec.height, : self._codec.width])
        frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")
        frame.pts = self._count * 3600
        self._count += 1
        self._codec.encode(frame)
        return time.process_time() - begun


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Syllable-like bursts of noise and tone (N,), so that nothing is timed on silence."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 16_000)) / 16_000
    syllables = np.clip(np.sin(2 * np.pi * 4 * t), 0, 1)
    tone = sum(np.sin(2 * np.pi * f * t) / f for f in (130, 260, 520, 1040, 2080))
    return (syllables * (20 * tone + 0.1 * rng.standard_normal(len(t))) * 0.2).astype(np.float32)


def load(changes: dict[str, Any], spent: dict[str, float]) -> AvatarEngine:
    """The engine with its own defaults but for `changes`, its graphs timed."""
    threads = changes.get("threads") or EngineConfig(**changes).threads
    if not threads:  # measured at start: the engine says how many
        threads = AvatarEngine.load(EngineConfig(**changes)).config.threads
    config = EngineConfig(**{**changes, "threads": threads})
    return AvatarEngine.load(
        config, CpuBackend(load_backend(config.backend, threads=threads), spent)
    )


def main() -> None:
    """Load, then answer each number."""
    portrait, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
    spent: dict[str, float] = defaultdict(float)
    engine = load(changes, spent)
    identity = engine.enroll(decode_image(portrait.read_bytes()))
    state = engine.start(identity)
    engine.set_quality(state, Quality(**json.loads(sys.argv[3])))
    encoder, sound, at = Encoder(*identity.size), voice(60), 0
    print("ready", engine.config.threads, flush=True)
    for line in sys.stdin:
        rows: dict[str, list[dict[str, float]]] = {"painted": [], "carried": [], "repeated": []}
        begun = time.perf_counter()
        for _ in range(int(line)):
            spent.clear()
            painted = state.painted
            hop = sound[at : at + HOP]
            at = (at + HOP) % (len(sound) - HOP)
            before = time.process_time()
            frames = engine.step(state, hop)
            took = time.process_time() - before
            row = {**spent, "numpy between": took - sum(spent.values()), "engine": took}
            row["encode"] = sum(encoder.encode(frame.rgb) for frame in frames if frame.fresh)
            row["whole frame"] = took + row["encode"]
            fresh = any(frame.fresh for frame in frames)
            kind = "painted" if state.painted != painted else "carried" if fresh else "repeated"
            rows[kind].append(row)
        answer = {"rows": rows, "seconds": time.perf_counter() - begun}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
