"""One frame of the full-size system on this CPU, beside diffusers' own pipeline, in the same run.

Random weights, 512 x 512 pixels, the tiny autoencoder, no classifier-free guidance. Three systems,
each in a process of its own so that its peak memory is its own. They draw in turns, frame by frame, so
that a busy moment is shared by all; a first frame of each is not timed. All three are in memory at once:

  diffusers   StableDiffusionControlNetPipeline with IP-Adapter-FaceID
  ours        the same networks through ours, extras off
  ours, all   with landmark, placement and temporal attention, a reference and a previous frame

Weights are bfloat16. Where the CPU has fast bfloat16 products (AVX-512) they are used; elsewhere
weights are widened layer by layer and products are float32, for all three alike. Prints a table, then
one JSON line. Run it on an idle machine:

    python -m benchmarks.full_size --out benchmarks/results/full_size.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from operator import truediv
from pathlib import Path
from typing import Any

from benchmarks.environment import describe, print_header, print_json

SYSTEMS = ("diffusers", "ours", "ours, all")  # each in a process of its own, so no import of it
MEMORY_BAR_GIB = 12.0


def peak_gib() -> float:
    """The most memory this process ever held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    raise OSError("/proc/self/status has no VmHWM")


def draw(system: str, size: str, steps: int, precision: str, threads: int) -> None:
    """Build one system here, then draw a frame for each line of stdin; answers are lines of JSON."""
    import torch

    from benchmarks.sd15_systems import Setup, build

    torch.set_num_threads(threads)
    begun = time.perf_counter()
    frame = build(system, Setup(small=size == "small", precision=precision))
    print(json.dumps({"built_s": round(time.perf_counter() - begun, 1)}), flush=True)
    with torch.inference_mode():
        for _ in sys.stdin:
            begun = time.perf_counter()
            image = frame(steps, 1)
            seconds = time.perf_counter() - begun
            answer = {"s": seconds, "picture": list(image.shape), "peak_gib": round(peak_gib(), 2)}
            print(json.dumps(answer), flush=True)


class Child:
    """One system in a process of its own."""

    def __init__(self, system: str, args: argparse.Namespace) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.full_size", "--system", system]
        for name in ("size", "steps", "precision", "threads"):
            command += [f"--{name}", str(getattr(args, name))]
        self.system = system
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.built_s = self._answer()["built_s"]

    def frame(self) -> dict[str, Any]:
        """Draw one frame: its seconds, its shape, and the most memory the process ever held."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.system} failed with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def in_turns(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Frames of every system, one of each at a time; a row each."""
    children = [Child(system, args) for system in SYSTEMS]  # built one after the other
    turns = [[child.frame() for child in children] for _ in range(1 + args.frames)]
    for child in children:
        child.close()
    return [
        {
            "system": child.system,
            "built_s": child.built_s,
            "frame_s": [round(answer["s"], 4) for answer in answers[1:]],
            "peak_gib": answers[-1]["peak_gib"],
            "picture": answers[-1]["picture"],
        }
        for child, answers in zip(children, zip(*turns, strict=True), strict=True)
    ]


def precision_here() -> str:
    """bfloat16 products where they are fast; else bfloat16 weights and float32 products."""
    from engine.nets.precision import multiplies_bfloat16

    return "bfloat16" if multiplies_bfloat16() else "widened"


def main() -> None:
    """Time the systems in turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--steps", type=int, default=1, help="denoising steps a frame")
    parser.add_argument("--frames", type=int, default=5, help="frames of each to time")
    parser.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "widened", "float32"),
        default="auto",
        help="widened: bfloat16 weights, float32 products",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--system", choices=SYSTEMS, help="draw a frame of it for each line of stdin"
    )
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    if args.precision == "auto":
        args.precision = precision_here()
    if args.system:
        draw(args.system, args.size, args.steps, args.precision, args.threads)
        return
    rows = in_turns(args)
    best = {row["system"]: min(row["frame_s"]) for row in rows}
    about = describe()
    print_header(f"One {rows[0]['picture'][1]} px frame, {args.steps} step(s)", about)
    print(f"  torch {version('torch')}, diffusers {version('diffusers')}, {args.precision}")
    print(f"{'system':<12}{'frame':>9}{'peak':>10}{'built':>9}")
    for row in rows:
        print(
            f"{row['system']:<12}{best[row['system']]:>7.2f} s{row['peak_gib']:>6.2f} GiB"
            f"{row['built_s']:>7.1f} s"
        )
    ratio = best["ours"] / best["diffusers"]
    times = {row["system"]: row["frame_s"] for row in rows}
    median = statistics.median(map(truediv, times["ours"], times["diffusers"]))
    peak = max(row["peak_gib"] for row in rows if row["system"] != "diffusers")
    print(f"ours / diffusers: {median:.2f} (median of neighbours), {ratio:.2f} (best of each)")
    print(f"ours at most {peak:.2f} GiB (bar {MEMORY_BAR_GIB:.0f})")
    result = {
        "benchmark": "full_size",
        "size": args.size,
        "steps": args.steps,
        "precision": args.precision,
        "threads": args.threads,
        "systems": rows,
        "ours_over_diffusers": round(ratio, 3),
        "ours_over_diffusers_p50": round(median, 3),
        "ours_peak_gib": peak,
        "packages": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        **about,
    }
    print_json(result, args.out)


if __name__ == "__main__":
    main()
