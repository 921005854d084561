"""Two reports side by side: paired differences over the clips that both have, with bootstrap intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.evaluation.measures import COLUMNS
from engine.evaluation.run import title
from engine.evaluation.table import Report, shown

DRAWS, LEVEL = 10_000, 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """B less A of one measure: the mean over pairs, and what its mean may be by chance."""

    system: str
    protocol: str
    name: str
    a: float
    b: float
    mean: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self) -> str:
        """In words, as far as the interval carries it."""
        if self.pairs < 2:
            return "one pair: no interval"
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
    """Of every measure that both have, by system and protocol, clips paired by name.

    Raises:
        DataError: they have no clip of a system in common.
    """
    found = []
    for protocol in a.protocols:
        for system in a.systems(protocol):
            for name in COLUMNS:
                ours, theirs = a.each(system, protocol, name), b.each(system, protocol, name)
                both = [c for c in ours if c in theirs and np.isfinite([ours[c], theirs[c]]).all()]
                if not both:
                    continue
                apart = [theirs[c] - ours[c] for c in both]
                low, high = interval(apart)
                a_mean, b_mean = (
                    float(np.mean([side[c] for c in both])) for side in (ours, theirs)
                )
                mean = float(np.mean(apart))
                found.append(
                    Difference(system, protocol, name, a_mean, b_mean, mean, low, high, len(both))
                )
    if not found:
        raise DataError("the two reports have no clip of a system and protocol in common")
    return found


def table(a: Path, b: Path, rows: Sequence[Difference]) -> str:
    """The comparison as a page."""
    heads = ("", "protocol", "measure", "A", "B", "B − A", "95 %", "pairs", "")
    lines = ["<tr>" + "".join(f"<th>{h}</th>" for h in heads) + "</tr>"]
    for row in rows:
        numbers = [shown(v, row.name) for v in (row.a, row.b, row.mean)]
        span = f"{shown(row.low, row.name)} to {shown(row.high, row.name)}"
        cells = [title(row.system), row.protocol, COLUMNS[row.name].title, *numbers, span, str(row.pairs), row.verdict]  # fmt: skip
        lines.append("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    style = (Path(__file__).parent / "page.css").read_text()
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Two evaluations</title>'
        f"<style>{style}</style><main><h1>A: {escape(a.name)}, B: {escape(b.name)}</h1>"
        f"<div class=wide><table>{''.join(lines)}</table></div></main></html>\n"
    )
