"""What measuring costs: seconds, processor seconds and memory of each measure."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

Cost = dict[str, float]  # seconds, cpu_s: of all threads; peak_mb: of the whole process meanwhile
PROC = Path("/proc/self")


class Meter:
    """Notes the cost of each named part; what is measured in several parts is added up."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Whatever is done inside is the cost of `name`."""
        _forget_peak()
        begun, worked = time.monotonic(), time.process_time()
        yield
        self.add(
            name,
            {
                "seconds": time.monotonic() - begun,
                "cpu_s": time.process_time() - worked,
                "peak_mb": peak_mb(),
            },
        )

    def add(self, name: str, cost: Cost) -> None:
        """Add a cost that was noted before."""
        self.costs[name] = total([self.costs.get(name, {}), cost])


def total(costs: Iterable[Mapping[str, float]]) -> Cost:
    """Seconds added up, and the highest peak."""
    rows = [cost for cost in costs if cost]
    return {
        "seconds": round(sum(c["seconds"] for c in rows), 3),
        "cpu_s": round(sum(c["cpu_s"] for c in rows), 3),
        "peak_mb": round(max((c["peak_mb"] for c in rows), default=0.0)),
    }


def mean(costs: Sequence[Mapping[str, float]]) -> Cost:
    """Mean of the seconds, and the highest peak, of at least one."""
    cost = total(costs)
    return cost | {name: cost[name] / len(costs) for name in ("seconds", "cpu_s")}


def peak_mb() -> float:
    """Most memory that this process held since `_forget_peak`; where that is not told, since it began."""
    try:
        lines = (PROC / "status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _forget_peak() -> None:
    try:
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return
