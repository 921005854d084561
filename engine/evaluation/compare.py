"""Two reports side by side: paired differences over the clips that both have, with bootstrap intervals.

Systems are paired by name. Where the reports have one system each, and not the same one, these are the pair.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.evaluation.measures import COLUMNS
from engine.evaluation.run import title
from engine.evaluation.systems import REFERENCES
from engine.evaluation.table import Report

DRAWS, LEVEL = 10_000, 0.95
SAME = 1e-4  # of the value: what another order of sums makes


@dataclass(frozen=True, slots=True)
class Difference:
    """B less A of one measure: the mean over pairs, and what its mean may be by chance."""

    system: str  # of A
    other: str  # of B
    protocol: str
    name: str
    a: float
    b: float
    mean: float
    low: float
    high: float
    pairs: int  # clips; 0: measured of all clips together

    @property
    def whose(self) -> str:
        """The system, or both where they are two."""
        names = dict.fromkeys((title(self.system), title(self.other)))
        return " against ".join(names)

    @property
    def verdict(self) -> str:
        """In words, as far as the interval carries it."""
        if max(abs(self.low), abs(self.high)) <= SAME * max(abs(self.a), abs(self.b)):
            return "the same"
        if self.pairs < 2:
            return "one pair: no interval" if self.pairs else "of the whole set: no interval"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        way = COLUMNS[self.name].better
        if way == "near":
            return "B is higher" if self.mean > 0 else "B is lower"
        return "B is better" if (self.mean > 0) == (way == "higher") else "A is better"


def interval(values: Sequence[float], *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Where the mean of such values lies in 95 of 100 cases: percentile bootstrap over them."""
    given = np.asarray(values, np.float64)
    picked = np.random.default_rng(seed).integers(0, len(given), (draws, len(given)))
    low, high = np.quantile(given[picked].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def read_report(folder: Path) -> Report:
    """Read `report.json` of a report's folder.

    Raises:
        DataError: it is missing or is none of ours.
    """
    path = folder / "report.json" if folder.is_dir() else folder
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        rows = [
            (row["system"], row["protocol"], row["clip"], row["values"]) for row in data["rows"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no report of `portraittalk evaluate`: {error!r}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    return Report(data)


def differences(a: Report, b: Report) -> list[Difference]:
    """Of every measure that both have, by system and protocol, clips paired by name; references last.

    Raises:
        DataError: they have no clip of a system in common.
    """
    found = []
    for protocol in a.protocols:
        for ours, theirs in _pairs(a, b, protocol):
            for name in COLUMNS:
                one = _difference(a, b, ours, theirs, protocol, name)
                if one is not None:
                    found.append(one)
    if not any(row.system not in REFERENCES for row in found):
        own = [", ".join(_own(side)) or "references alone" for side in (a, b)]
        raise DataError(
            "the two reports have no clip of a system and protocol in common: A has "
            f"{own[0]}, B has {own[1]}"
        )
    return found


def _own(report: Report) -> list[str]:
    """Systems that are no references."""
    each = (system for protocol in report.protocols for system in report.systems(protocol))
    return [system for system in dict.fromkeys(each) if system not in REFERENCES]


def _pairs(a: Report, b: Report, protocol: str) -> list[tuple[str, str]]:
    """Systems of A and of B that are held against each other."""
    ours, theirs = _own(a), _own(b)
    there = b.systems(protocol)
    both = [(s, s) for s in a.systems(protocol) if s in there]
    if len(ours) == len(theirs) == 1 and ours != theirs:
        both.append((ours[0], theirs[0]))
    return sorted(both, key=lambda pair: pair[0] in REFERENCES)


def _difference(
    a: Report, b: Report, ours: str, theirs: str, protocol: str, name: str
) -> Difference | None:
    """B less A of one measure; None where they have no clip of it in common."""
    one, other = a.each(ours, protocol, name), b.each(theirs, protocol, name)
    both = [c for c in one if c in other and np.isfinite([one[c], other[c]]).all()]
    if both:
        apart = [other[c] - one[c] for c in both]
        means = [float(np.mean([side[c] for c in both])) for side in (one, other)]
        low, high = interval(apart)
        mean = float(np.mean(apart))
        return Difference(
            ours, theirs, protocol, name, means[0], means[1], mean, low, high, len(both)
        )
    keys = f"{ours}|{protocol}", f"{theirs}|{protocol}"
    values = [r.data["sets"].get(key, {}).get(name) for r, key in zip((a, b), keys, strict=True)]
    if not all(isinstance(value, int | float) for value in values):
        return None
    mean = values[1] - values[0]
    return Difference(ours, theirs, protocol, name, values[0], values[1], mean, mean, mean, 0)
