"""What a report was made with: processor, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("portraittalk", "openvino", "numpy", "av", "aiortc", "torch", "torchmetrics", "scipy")


def about() -> dict[str, Any]:
    """Hardware, versions and commit, as `report.json` holds them."""
    return {
        "hardware": {"cpu": _cpu(), "cores": len(_allowed())},
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
    }


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
