"""One frame of the full-size system on this CPU, beside diffusers' own pipeline, in the same run.

Random weights, 512 x 512 pixels, the tiny autoencoder, no classifier-free guidance. Three systems,
each in a process of its own so that its peak memory is its own:

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
import subprocess
import sys
import time
from importlib.metadata import version
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


def measure(system: str, size: str, steps: int, frames: int, precision: str, threads: int) -> dict:
    """Build one system here and time its frames."""
    import torch

    from benchmarks.sd15_systems import Setup, build

    torch.set_num_threads(threads)
    begun = time.perf_counter()
    frame = build(system, Setup(small=size == "small", precision=precision))
    built = time.perf_counter() - begun
    seconds = []
    with torch.inference_mode():
        for _ in range(frames):
            begun = time.perf_counter()
            picture = frame(steps, 1)
            seconds.append(round(time.perf_counter() - begun, 2))
    return {
        "system": system,
        "built_s": round(built, 1),
        "frame_s": seconds,
        "peak_gib": round(peak_gib(), 2),
        "picture": list(picture.shape),
    }


def child(system: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one system in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.full_size", "--system", system]
    for name in ("size", "steps", "frames", "precision", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{system} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def precision_here() -> str:
    """bfloat16 products where they are fast; else bfloat16 weights and float32 products."""
    from engine.nets.precision import multiplies_bfloat16

    return "bfloat16" if multiplies_bfloat16() else "widened"


def main() -> None:
    """Measure each system in turn, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--steps", type=int, default=1, help="denoising steps a frame")
    parser.add_argument("--frames", type=int, default=2, help="frames to time; the best counts")
    parser.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "widened", "float32"),
        default="auto",
        help="widened: bfloat16 weights, float32 products",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--system", choices=SYSTEMS, help="only this one, in this process")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    if args.precision == "auto":
        args.precision = precision_here()
    chosen = (args.size, args.steps, args.frames, args.precision, args.threads)
    if args.system:
        print(json.dumps(measure(args.system, *chosen)))
        return
    rows = [child(system, args) for system in SYSTEMS]
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
    peak = max(row["peak_gib"] for row in rows if row["system"] != "diffusers")
    print(f"ours / diffusers: {ratio:.2f}; ours at most {peak:.2f} GiB (bar {MEMORY_BAR_GIB:.0f})")
    result = {
        "benchmark": "full_size",
        "size": args.size,
        "steps": args.steps,
        "precision": args.precision,
        "threads": args.threads,
        "systems": rows,
        "ours_over_diffusers": round(ratio, 3),
        "ours_peak_gib": peak,
        "packages": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        **about,
    }
    print_json(result, args.out)


if __name__ == "__main__":
    main()
