"""Hold a process to a share of the processors, by a control group of Linux (either version); needs root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000


class NoQuota(Exception):
    """This system does not let us; the message says what is missing."""


@contextmanager
def held_to(pid: int, cores: float) -> Iterator[None]:
    """Give all threads of a process so many processors at most, until the block ends.

    Raises:
        NoQuota: there are no control groups for processors here, or they may not be made.
    """
    old = ROOT / "cpu"  # version 1 has a tree of its own for each resource
    name = f"held-{os.getpid()}-{pid}"
    group = (old if old.is_dir() else ROOT) / name
    quota = round(cores * PERIOD_US)
    try:
        group.mkdir()
        if old.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise NoQuota(f"a process cannot be held to {cores} cores here: {error}") from None
    try:
        yield
    finally:
        if Path(f"/proc/{pid}").exists():
            (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()
