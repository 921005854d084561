"""What a newcomer waits for: a clean clone, an empty pip cache, `./run.sh`, until the page answers.

Prints a few lines, then one JSON line. Needs git, Python's venv module and a package index:

    python -m benchmarks.install --out benchmarks/results/install.json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, describe, print_header, print_json
from benchmarks.server_process import answers, free_port

BAR_S, BAR_INSTALL_S, BAR_MB = 180.0, 90.0, 700.0


def folder_mb(folder: Path) -> float:
    """Size of a folder's files, MB."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def measure(limit_s: float) -> dict[str, Any]:
    """Clone the last commit into an empty folder, run it, stop it.

    Raises:
        RuntimeError: no page in time; the message holds the end of the output.
    """
    with tempfile.TemporaryDirectory() as name:
        clone, log = Path(name) / "clone", Path(name) / "log.txt"
        begun = time.monotonic()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        cloned_s = time.monotonic() - begun
        port = free_port()
        environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with log.open("wb") as out:
            server = subprocess.Popen(
                ["./run.sh", "--port", str(port)],
                cwd=clone,
                env={**environ, "PIP_NO_CACHE_DIR": "1"},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        stamp, installed_s = clone / ".venv" / "installed-core", None
        try:
            while not answers(f"http://127.0.0.1:{port}/"):
                if installed_s is None and stamp.exists():
                    installed_s = time.monotonic() - begun - cloned_s
                if server.poll() is not None or time.monotonic() - begun > limit_s:
                    raise RuntimeError(f"no page after {limit_s:.0f} s:\n{log.read_text()[-2000:]}")
                time.sleep(0.2)
            served_s = time.monotonic() - begun
            packages = next((clone / ".venv" / "lib").glob("python*/site-packages"))
            torch = (packages / "torch").exists()
            size = folder_mb(clone / ".venv")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "served_s": round(served_s, 1),
        "cloned_s": round(cloned_s, 1),
        "installed_s": None if installed_s is None else round(installed_s, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "installed_mb": round(size, 1),
        "torch": torch,
        "load_1min_after": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=1800, help="seconds to wait at most")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    about = describe()
    print_header("From a clean clone to the page", about)
    result = measure(options.limit)
    print(f"  page served after {result['served_s']} s (bar {BAR_S:.0f})")
    print(f"  of it install {result['installed_s']} s (bar {BAR_INSTALL_S:.0f})")
    print(f"  {result['installed_mb']} MB (bar {BAR_MB:.0f}), torch: {result['torch']}")
    print(f"  CPU time {result['cpu_s']} s; load now {result['load_1min_after']}")
    print_json({"benchmark": "install", **result, **about}, options.out)


if __name__ == "__main__":
    main()
