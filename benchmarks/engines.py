"""Engines of the full-size networks, built here for a GPU that is not: how large, how long, how much memory.

Random weights of the real sizes, half precision (which a CPU computes slowly: many minutes), one stream in a step. Every ONNX file is compared with its
network before (ONNX Runtime on the CPU). Prints a table, then one JSON line. Processor time beside the
time on the clock says how busy the machine was with something else.

    python -m benchmarks.engines --out benchmarks/results/engines.json
    python -m benchmarks.engines --size small
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.environment import describe, print_header, print_json
from engine.backends.tensorrt_build import TARGETS, Build, library
from engine.profiles.choose import make_config
from exports.engines import Plan, make_tiny, peak_bytes
from exports.sd15 import make_sd15

RUNTIME = "tensorrt-rtx"


def main() -> None:
    """Build, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--target", choices=TARGETS, default="sm89")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    about = describe()
    say = lambda what, done, total: print(what, flush=True) if done == 0 else None
    rows = []
    build = Build(runtime=RUNTIME, target=args.target, batches=(1,))
    sd15 = make_config("sd15", {}, {"random_weights": args.size}, live=True)
    begun, used = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(engines=Path(folder), build=build)
        for profile, make in (("tiny", make_tiny), ("sd15", make_sd15)):
            config = sd15 if profile == "sd15" else make_config(profile, {}, {}, live=True)
            rows += [{"profile": profile, **asdict(made)} for made in make(config, plan, say)]
    result = {
        "size": args.size,
        "target": args.target,
        "library": f"{RUNTIME} {library(RUNTIME).__version__}",
        "graphs": rows,
        "wall_s": round(time.perf_counter() - begun, 1),
        "cpu_s": round(time.process_time() - used, 1),
        "peak_gib": round(peak_bytes() / 2**30, 2),
    }
    print_header(f"Engines for {args.target} by {result['library']}", about)
    print(
        f"{'graph':<18}{'ONNX MB':>9}{'differs':>9}{'export s':>10}{'engine MB':>11}{'build s':>9}"
    )
    for row in rows:
        differs = "-" if row["difference"] is None else f"{row['difference']:.1e}"
        print(
            f"{row['profile'] + ' ' + row['graph']:<18}{row['onnx'] / 1e6:>9.1f}{differs:>9}"
            f"{row['export_s']:>10.1f}{row['engine'] / 1e6:>11.1f}{row['build_s']:>9.1f}"
        )
    print(f"{result['wall_s']} s, {result['cpu_s']} s of CPU, most memory {result['peak_gib']} GiB")
    print_json({"benchmark": "engines", **result, **about}, args.out)


if __name__ == "__main__":
    main()
