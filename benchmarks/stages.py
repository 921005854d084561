"""Milliseconds a frame spends in each stage of the engine, on this machine.

Prints a table, then one JSON line. Run it on an idle machine:

    python -m benchmarks.stages --out benchmarks/results/stages.json

`--doubled` times frames of twice the size too, in turns with the usual ones, so that a busy moment
is shared by both. `--against COMMIT` runs the engine of that commit, from a temporary worktree, in turns with this
one and compares processor times, as both come and with every mouth painted; runs two of this one at once; and shows
what each step of the server's ladder takes. `--batch 1 2 4` times so many streams in one step against one step each, in turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.against import compare, ladder, print_comparison, side_by_side
from benchmarks.environment import describe, print_header, print_json
from benchmarks.frames_child import voice
from engine.avatar import AvatarEngine
from engine.backends import BACKENDS, Backend, Graph, GraphSpec
from engine.backends.threads import load_runtime
from engine.config import EngineConfig
from engine.face.image_file import decode_image
from engine.render.specs import DENOISE
from server.settings import BUNDLED_PORTRAIT

RENDER = (
    "warp",
    "guide",
    "denoise",
    "decode",
)  # landmarks in, painted crop out; geometry included
# Settings of both engines: as they come, and every mouth painted.
COMPARED: tuple[dict[str, Any], ...] = ({}, {"paint_every": 1})


class TimedGraph:
    """A graph that notes how long each call took."""

    def __init__(self, graph: Graph, spent: list[float]) -> None:
        self.spec, self._graph, self._spent = graph.spec, graph, spent

    def __call__(self, **feeds: Any) -> dict[str, Any]:
        """Run once and note the time."""
        begun = time.perf_counter()
        out = self._graph(**feeds)
        self._spent.append(time.perf_counter() - begun)
        return out

    def each(self, rows: Any) -> list[dict[str, Any]]:
        """Run for several streams and note the time of all."""
        begun = time.perf_counter()
        out = self._graph.each(rows)
        self._spent.append(time.perf_counter() - begun)
        return out


class TimedBackend:
    """A run time whose graphs are timed; `spent` maps a graph's name to seconds."""

    def __init__(self, inner: Backend) -> None:
        self._inner, self.fast, self.put = inner, inner.fast, inner.put
        self.spent: dict[str, list[float]] = defaultdict(list)

    def load(self, spec: GraphSpec, path: Path) -> Graph:
        """Load a graph that notes its times."""
        return TimedGraph(self._inner.load(spec, path), self.spent[spec.name])


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile in milliseconds."""
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "p99": round(float(p99), 2)}


def measure(
    engine: AvatarEngine,
    spent: dict[str, list[float]],
    frames: int,
    warm_up: int,
    image: np.ndarray,
) -> dict:
    """Step frame by frame, as the live server does, with the portrait `image`."""
    begun = time.perf_counter()
    identity = engine.enroll(image)
    enrolled = time.perf_counter() - begun
    state = engine.start(identity)
    hop = engine.config.stream.hop_samples
    sound = voice((frames + warm_up) / engine.config.stream.fps)
    whole: list[float] = []
    for start in range(0, len(sound), hop):
        if start == warm_up * hop:
            whole.clear()
            for times in spent.values():
                times.clear()
        begun = time.perf_counter()
        engine.step(state, sound[start : start + hop])
        whole.append(time.perf_counter() - begun)
    used = {name: times for name, times in spent.items() if times}
    render = [sum(parts) for parts in zip(*(used[name] for name in RENDER), strict=True)]
    between = (sum(whole) - sum(map(sum, used.values()))) / len(whole)
    rows = {name: percentiles(times) for name, times in used.items()}  # `blink` runs in blinks only
    return {
        "frame_ms_mean": round(1000 * float(np.mean(whole)), 2),  # painted and carried ones
        "paint_every": engine.config.paint_every,
        "numpy_between_ms_mean": round(between * 1000, 2),
        "stages_ms": {**rows, "render": percentiles(render), "whole frame": percentiles(whole)},
        "enroll_ms": round(enrolled * 1000, 1),
        "frame_size": list(identity.size),
        "frames": len(whole),
        "render_ms_p50": percentiles(render)["p50"],
        "compute_ms_p95": percentiles(whole)["p95"],
        "realtime_factor": round(1 / engine.config.stream.fps / float(np.mean(whole)), 2),
    }


def doubled(config: EngineConfig, image: np.ndarray, blocks: int) -> dict[str, Any]:
    """Blocks of a second, usual and doubled frames in turns; ratios are those of neighbours."""
    hop, fps = config.stream.hop_samples, config.stream.fps
    sound, milliseconds = voice(blocks + 2), []
    streams = []
    for side in (config.max_side, 2 * config.max_side):
        engine = AvatarEngine.load(dataclasses.replace(config, max_side=side))
        identity = engine.enroll(enlarged(image, side))
        streams.append((engine, engine.start(identity), identity.size))
    for start in range(0, len(sound) - hop * fps + 1, hop * fps):
        row = []
        for engine, state, _ in streams:
            begun = time.perf_counter()
            for first in range(start, start + hop * fps, hop):
                engine.step(state, sound[first : first + hop])
            row.append((time.perf_counter() - begun) / fps * 1000)
        milliseconds.append(row)
    usual, large = np.array(milliseconds[2:]).T
    low, ratio, high = np.percentile(large / usual, [25, 50, 75])
    return {
        "frame_sizes": [list(size) for _, _, size in streams],
        "frame_ms_p50": [round(float(np.median(x)), 2) for x in (usual, large)],
        "ratio_p50": round(float(ratio), 3),
        "ratio_quartiles": [round(float(low), 3), round(float(high), 3)],
        "blocks": len(usual),
    }


def together(
    config: EngineConfig, image: np.ndarray, sizes: list[int], blocks: int
) -> list[dict[str, Any]]:
    """CPU time a frame of so many streams stepped together and one by one, in turns of a second."""
    hop, fps = config.stream.hop_samples, config.stream.fps
    rows = []
    for size in sizes:
        engine = AvatarEngine.load(dataclasses.replace(config, batch=size))
        who, sound = engine.enroll(image), voice(blocks + 2)
        both = [[engine.start(who, seed=seed) for seed in range(size)] for _ in range(2)]
        spent = []
        for start in range(0, len(sound) - hop * fps + 1, hop * fps):
            hops = [sound[at : at + hop] for at in range(start, start + hop * fps, hop)]
            begun = time.process_time()
            for pcm in hops:
                engine.step_many([(state, pcm) for state in both[0]])
            half = time.process_time()
            for pcm in hops:
                for state in both[1]:
                    engine.step(state, pcm)
            spent.append((half - begun, time.process_time() - half))
        one, alone = np.array(spent[1:]).T / (fps * size) * 1000
        rows.append(
            {
                "streams": size,
                "cpu_ms_a_frame": round(float(np.median(one)), 2),
                "cpu_ms_a_frame_one_by_one": round(float(np.median(alone)), 2),
                "ratio_p50": round(float(np.median(one / alone)), 3),
            }
        )
    return rows


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """The picture (H, W, 3), not smaller than `side`: a frame's cost depends on its size only."""
    scale = side / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size)) if scale > 1 else image


def main() -> None:
    """Load, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=500, help="frames to time")
    parser.add_argument("--warm-up", type=int, default=50, help="frames before that")
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads of one graph; as measured"
    )
    parser.add_argument(
        "--max-side", type=int, default=EngineConfig().max_side, help="longest side of the frames"
    )
    parser.add_argument(
        "--portrait", type=Path, default=BUNDLED_PORTRAIT, help="as large as --max-side asks for"
    )
    parser.add_argument(
        "--doubled", action="store_true", help="also time frames of twice the size, in turns"
    )
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="also time so many streams in one step, in turns with one step each",
    )
    parser.add_argument("--against", metavar="COMMIT", help="also compare with that commit")
    parser.add_argument("--blocks", type=int, default=8, help="of a second, a side, for --against")
    parser.add_argument("--backend", choices=BACKENDS, default="openvino")
    parser.add_argument(
        "--weights", type=Path, help="folder of the graphs, if not the embedded one"
    )
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    chosen = {} if args.weights is None else {"weights": args.weights}
    config, runtime = load_runtime(
        EngineConfig(threads=args.threads, backend=args.backend, max_side=args.max_side, **chosen),
        DENOISE,
    )
    begun = time.perf_counter()
    backend = TimedBackend(runtime)
    engine = AvatarEngine.load(config, backend)
    loaded = time.perf_counter() - begun
    image = decode_image(args.portrait.read_bytes())
    result = measure(
        engine, backend.spent, args.frames, args.warm_up, enlarged(image, args.max_side)
    )
    result |= {"load_s": round(loaded, 2), "backend": args.backend, "threads": config.threads}
    if args.doubled:
        result["doubled"] = doubled(config, image, args.frames // config.stream.fps)
    if args.batch:
        seconds = args.frames // config.stream.fps
        result["together"] = together(config, enlarged(image, args.max_side), args.batch, seconds)
    if args.against:
        result["against"] = [
            compare(args.against, args.portrait, args.blocks, changes) for changes in COMPARED
        ]
        result["at_once"] = side_by_side(args.portrait, args.blocks, {})
        result["ladder"] = ladder(args.portrait, args.blocks)
    about = describe()
    print_header("Milliseconds a frame", about)
    print(f"{'stage':<14}{'p50':>8}{'p95':>8}{'p99':>8}   ms")
    for name, row in result["stages_ms"].items():
        print(f"{name:<14}{row['p50']:>8}{row['p95']:>8}{row['p99']:>8}")
    print(f"engine loaded in {result['load_s']} s, portrait enrolled in {result['enroll_ms']} ms")
    if args.doubled:
        usual, large = result["doubled"]["frame_ms_p50"]
        print(f"twice the size: {large} ms for {usual}, {result['doubled']['ratio_p50']} x")
    for row in result.get("together", ()):
        print(
            f"{row['streams']} streams: {row['cpu_ms_a_frame']} ms of CPU a frame in one step, "
            f"{row['cpu_ms_a_frame_one_by_one']} one by one, {row['ratio_p50']} x"
        )
    for row in result.get("against", ()):
        print_comparison(row)
    if args.against:
        print(f"two engines at once: {result['at_once']['two_at_once_over_one']} x the time of one")
    for step in result.get("ladder", ()):
        print(
            f"ladder: a mouth every {step['paint_every']}, a picture every {step['draw_every']}"
            f"{', half the size' if step['half'] else ''}: "
            f"{step['cpu_ms_a_frame']} ms of CPU a frame, {step['ratio_p50']} x of the first"
        )
    print_json({"benchmark": "stages", **result, **about}, args.out)


if __name__ == "__main__":
    main()
