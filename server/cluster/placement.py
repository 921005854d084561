"""Where a new session goes, and how many replicas there should be. Arithmetic alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

BUSY = 0.75  # share of the places in use at which another replica is wanted


@dataclass(slots=True)
class Load:
    """What a replica last said of itself, and what was sent there since."""

    places: int  # viewers that it serves well at once, as measured
    sessions: int  # open ones, those that wait to be connected among them
    step_ms: float  # what a frame takes its engine
    draining: bool = False
    sent: int = field(default=0)  # sessions placed there since it said so

    @property
    def free(self) -> int:
        """Places that nobody has or is about to have."""
        return self.places - self.sessions - self.sent


def choose(loads: Iterable[tuple[str, Load]]) -> str | None:
    """The replica for one more session: that with most of its places free, of equals the fastest.

    One that drains gets nobody. If no place is free it is the one that is least overfull, which says so
    itself; None: there is no replica.
    """
    open_ones = [(name, load) for name, load in loads if not load.draining]
    if not open_ones:
        return None
    return max(open_ones, key=lambda each: (_room(each[1]), -each[1].step_ms, each[0]))[0]


def _room(load: Load) -> float:
    return load.free / max(1, load.places)


def wanted(in_use: float, places: float, replicas: int, least: int, most: int) -> int:
    """How many replicas so many sessions in use want, when `replicas` have so many places together."""
    if replicas < 1 or places <= 0:
        return least
    each = places / replicas
    return min(most, max(least, math.ceil(in_use / (BUSY * each) - 1e-9)))
