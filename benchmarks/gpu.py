"""Speed of both profiles on an NVIDIA GPU. It has not been run on one yet.

Two tables, then one JSON line:

  tiny   a whole frame of the engine, every frame painted, on each installed run time (the graphs'
         geometry stays fp32); N sessions in one step (`step_many`), in turns with one step each
  sd15   a 512 px frame with random weights in torch, beside diffusers' own pipeline

    python -m benchmarks.gpu --out benchmarks/results/gpu.json
    python -m benchmarks.gpu --device cpu --small        # tries the script, in under a minute
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.environment import describe, gpus, print_header, print_json
from benchmarks.frames_child import voice
from benchmarks.stages import percentiles
from engine.avatar import AvatarEngine
from engine.backends import BACKENDS
from engine.config import EngineConfig
from engine.errors import BackendUnavailable
from engine.face.image_file import decode_image
from server.settings import BUNDLED_PORTRAIT

if TYPE_CHECKING:
    from benchmarks.sd15_systems import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured."""

    sessions: tuple[int, ...] = (1, 4, 8)
    steps: tuple[int, ...] = (1, 2, 4)
    rows: tuple[int, ...] = (2, 4, 8)  # of a batch, at one step
    warm_up: int = 5
    frames: int = 100


SMALL = Extent(sessions=(1, 2), steps=(1, 2), rows=(2,), warm_up=2, frames=3)


def timed(work: Callable[[], Any], warm_up: int, count: int) -> list[float]:
    """Seconds of each of `count` calls, after some that do not count."""
    seconds = []
    for _ in range(warm_up + count):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return seconds[warm_up:]


def tiny(backend: str, extent: Extent) -> list[dict[str, Any]]:
    """Times of one run time, a row for each number of sessions; or why it is not here."""
    image = decode_image(BUNDLED_PORTRAIT.read_bytes())
    rows = []
    for sessions in extent.sessions:
        begun = time.perf_counter()
        try:
            engine = AvatarEngine.load(EngineConfig(backend=backend, paint_every=1, batch=sessions))
        except BackendUnavailable as error:
            return [{"backend": backend, "refused": str(error)}]
        loaded = round(time.perf_counter() - begun, 2)
        rows.append({"backend": backend, "load_s": loaded, **in_turns(engine, image, extent)})
    return rows


def in_turns(engine: AvatarEngine, image: np.ndarray, extent: Extent) -> dict[str, Any]:
    """Times of `engine.config.batch` sessions: a frame of all in one step, then in one step each."""
    sessions, stream = engine.config.batch, engine.config.stream
    who = engine.enroll(image)
    both = [[engine.start(who, seed=seed) for seed in range(sessions)] for _ in range(2)]
    skipped = stream.lookahead_frames + extent.warm_up  # hops before the first frame, then warm-up
    sound = voice((skipped + extent.frames) / stream.fps).reshape(-1, stream.hop_samples)
    together, each = [], []
    frames: list[Any] = []
    for pcm in sound:
        begun = time.perf_counter()
        done = engine.step_many([(state, pcm) for state in both[0]])
        together.append(time.perf_counter() - begun)
        frames = done[0] or frames
        for state in both[1]:
            begun = time.perf_counter()
            engine.step(state, pcm)
            each.append(time.perf_counter() - begun)
    all_at_once = np.array(together[skipped:])
    one_by_one = np.array(each[skipped * sessions :]).reshape(-1, sessions)
    return {
        "sessions": sessions,
        "frame_ms": percentiles(list(one_by_one.ravel())),
        "all_sessions_ms": percentiles(list(one_by_one.sum(1))),
        "together_ms": percentiles(list(all_at_once)),
        "together_ratio_p50": round(float(np.median(all_at_once / one_by_one.sum(1))), 3),
        "picture": frames[0].rgb,
    }


def differences(rows: list[dict[str, Any]]) -> None:
    """Replace each image (H, W, 3) by its mean difference, of 255, from the first run time's."""
    first: dict[int, Any] = {}
    for row in rows:
        if "picture" in row:
            picture = row.pop("picture").astype(int)
            wanted = first.setdefault(row["sessions"], picture)
            row["differs"] = round(float(np.abs(picture - wanted).mean()), 4)


def sd15(system: str, setup: Setup, extent: Extent) -> list[dict[str, Any]]:
    """Times of one system, a row for each number of steps and each batch."""
    from benchmarks.sd15_systems import build

    gc.collect()  # the system before
    frame = build(system, setup)
    rows = []
    with torch.inference_mode():
        for steps, batch in [(n, 1) for n in extent.steps] + [(1, n) for n in extent.rows]:
            if setup.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            seconds = timed(lambda at=(steps, batch): frame(*at), extent.warm_up, extent.frames)
            rows.append(
                {
                    "system": system,
                    "steps": steps,
                    "batch": batch,
                    "frame_ms": percentiles([s / batch for s in seconds]),
                    "peak_gib": peak_gib(setup.device),
                }
            )
    return rows


def peak_gib(device: str) -> float | None:
    """The most memory torch's tensors took on the GPU since the last reset; None on a CPU."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device == "cuda" else None


def print_tables(result: dict[str, Any]) -> None:
    """Print both, for people."""
    print("tiny, ms a frame; all: one of every session, one by one; together: the same in one step")
    print("ratio: together / all, median; differs: mean difference from the first run time, of 255")
    print(
        f"{'run time':<14}{'sessions':>9}{'p50':>9}{'p95':>9}{'all p95':>9}{'together':>9}"
        f"{'ratio':>7}{'load s':>8}{'differs':>9}"
    )
    for row in result["tiny"]:
        if "refused" in row:
            print(f"{row['backend']:<14} {row['refused']}")
            continue
        ms, everyone = row["frame_ms"], row["all_sessions_ms"]
        print(
            f"{row['backend']:<14}{row['sessions']:>9}{ms['p50']:>9}{ms['p95']:>9}"
            f"{everyone['p95']:>9}{row['together_ms']['p95']:>9}{row['together_ratio_p50']:>7}"
            f"{row['load_s']:>8}{row['differs']:>9}"
        )
    print(f"sd15, random weights, {result['precision']}, ms a frame")
    print(f"{'system':<24}{'steps':>6}{'batch':>6}{'p50':>10}{'p95':>10}{'peak GiB':>10}")
    for row in result["sd15"]:
        ms, peak = row["frame_ms"], row["peak_gib"]
        print(
            f"{row['system']:<24}{row['steps']:>6}{row['batch']:>6}{ms['p50']:>10}{ms['p95']:>10}"
            f"{'-' if peak is None else peak:>10}"
        )


def measure(device: str, *, small: bool) -> dict[str, Any]:
    """Both tables."""
    from benchmarks.sd15_systems import RECORDED, SYSTEMS, Setup

    extent = SMALL if small else Extent()
    rows = [row for backend in BACKENDS for row in tiny(backend, extent)]
    differences(rows)
    setup = Setup(
        small=small, precision="bfloat16" if device == "cuda" else "float32", device=device
    )
    systems = (*SYSTEMS, RECORDED) if device == "cuda" else SYSTEMS
    return {
        "device": device,
        "gpus": gpus(),
        "small": small,
        "precision": setup.precision,
        "tiny": rows,
        "sd15": [row for system in systems for row in sd15(system, setup, extent)],
        "packages": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "cuda": torch.version.cuda,
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small networks, a few frames")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} sees no NVIDIA GPU; --device cpu --small tries the script "
            "without one",
            file=sys.stderr,
        )
        sys.exit(2)
    about = describe()
    result = measure(args.device, small=args.small)
    print_header("Both profiles on a GPU" if args.device == "cuda" else "On the CPU", about)
    for gpu in result["gpus"]:
        print(f"  {gpu['name']}, {gpu['memory']}, driver {gpu['driver']}, CUDA {result['cuda']}")
    print(f"  {' '.join(f'{name} {number}' for name, number in result['packages'].items())}")
    print_tables(result)
    print_json({"benchmark": "gpu", **result, **about}, args.out)


if __name__ == "__main__":
    main()
