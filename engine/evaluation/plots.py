"""Plots as SVG in the page's own text: no package, no file beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 260, 180, 16, 30, 36
COLOURS = (
    "#1b6ca8", "#d1495b", "#2e8b57", "#e08e0b", "#6a4c93", "#00798c", "#8d6a4f", "#e377c2", "#7fb800", "#0f0f9f",
)  # fmt: skip
OTHER = "#555555"
MOST_POINTS = 360  # of a line


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, for all plots of a page."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def spread(titles: str, each: Mapping[str, Sequence[float]], colour: Mapping[str, str]) -> str:
    """One row a system, one dot a clip, a bar at the median."""
    rows = {n: [v for v in vs if math.isfinite(v)] for n, vs in each.items()}
    rows = {n: vs for n, vs in rows.items() if vs}
    if not rows:
        return ""
    height = TOP + BOTTOM + 26 * len(rows)
    low, high = _range([v for vs in rows.values() for v in vs])
    x = _scale(low, high, LEFT, WIDTH - RIGHT)
    marks = []
    for i, (name, values) in enumerate(rows.items()):
        y = TOP + 26 * i + 13
        fill = colour.get(name, OTHER)
        middle = x(float(np.median(values)))
        marks.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        marks += [f'<circle cx="{x(v):.1f}" cy="{y}" r="4" fill="{fill}" fill-opacity=".6"/>' for v in values]  # fmt: skip
        marks.append(f'<path d="M{middle:.1f} {y - 9}V{y + 9}" stroke="{fill}" stroke-width="2"/>')
    return _frame(titles, height, low, high, x, "".join(marks))


def lines(
    titles: str,
    series: Mapping[str, Sequence[float]],
    colour: Mapping[str, str],
    rate_hz: float = 25.0,
) -> str:
    """A line a series over time in seconds, each named at its side."""
    kept = {n: np.asarray(s, float) for n, s in series.items() if len(s) > 1}
    finite = [v for s in kept.values() for v in s[np.isfinite(s)]]
    if not finite:
        return ""
    low, high = _range(finite)
    longest = max(len(s) for s in kept.values()) / rate_hz
    x = _scale(0, longest, LEFT, WIDTH - RIGHT)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    marks = [_across(low, high, y)]
    for i, (name, values) in enumerate(kept.items()):
        pen = colour.get(name, OTHER)
        dashes = "" if name in colour else ' stroke-dasharray="4 3"'
        marks.append(
            f'<path d="{_path(values, x, y, rate_hz)}" fill="none" stroke="{pen}"{dashes}/>'
        )
        marks.append(f'<text x="4" y="{TOP + 22 + 16 * i}" fill="{pen}">{escape(name)}</text>')
    return _frame(titles, HEIGHT, 0, longest, x, "".join(marks))


def scatter(
    titles: str, points: Mapping[str, tuple[float, float]], colour: Mapping[str, str]
) -> str:
    """A named dot a system: across latency in ms, up a measure."""
    kept = {n: p for n, p in points.items() if all(math.isfinite(v) for v in p)}
    if not kept:
        return ""
    low, high = _range([0.0, *(p[0] for p in kept.values())])
    bottom, top = _range([p[1] for p in kept.values()])
    x, y = _scale(low, high, LEFT, WIDTH - 140), _scale(bottom, top, HEIGHT - BOTTOM, TOP)
    marks = [_across(bottom, top, y)]
    for name, (across, up) in kept.items():
        at = f'x="{x(across) + 8:.1f}" y="{y(up) + 4:.1f}"'
        marks.append(f'<circle cx="{x(across):.1f}" cy="{y(up):.1f}" r="5" fill="{colour.get(name, OTHER)}"/>')  # fmt: skip
        marks.append(f"<text {at}>{escape(name)}</text>")
    return _frame(titles, HEIGHT, low, high, x, "".join(marks))


class _scale:
    """A straight line from values to pixels."""

    def __init__(self, low: float, high: float, begin: float, end: float) -> None:
        self._low, self._begin = low, begin
        self._by = (end - begin) / ((high - low) or 1)

    def __call__(self, value: float) -> float:
        return self._begin + (value - self._low) * self._by


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _path(values: NDArray[np.float64], x: _scale, y: _scale, rate_hz: float) -> str:
    step = max(1, len(values) // MOST_POINTS)
    pen, parts = "M", []
    for i in range(0, len(values), step):
        if not math.isfinite(values[i]):
            pen = "M"
            continue
        parts.append(f"{pen}{x(i / rate_hz):.1f} {y(float(values[i])):.1f}")
        pen = "L"
    return "".join(parts)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from `low` to `high`, at most `most` of them, by steps of 1, 2 or 5 times a power of ten."""
    least = (high - low) / most
    power = 10.0 ** math.floor(math.log10(least))
    step = next(by * power for by in (1, 2, 5, 10) if by * power >= least)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _across(low: float, high: float, y: _scale) -> str:
    """The axis at the left."""
    return "".join(
        f'<path d="M{LEFT} {y(v):.1f}H{WIDTH - RIGHT}" stroke="#eee"/>'
        f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.4g}</text>'
        for v in ticks(low, high, 5)
    )


def _frame(titles: str, height: int, low: float, high: float, x: _scale, marks: str) -> str:
    floor = height - BOTTOM
    down = "".join(
        f'<path d="M{x(v):.1f} {TOP}V{floor}" stroke="#ddd"/>'
        f'<text x="{x(v):.1f}" y="{floor + 16}" text-anchor="middle">{v:.4g}</text>'
        for v in ticks(low, high)
    )
    return (
        f'<div class=plot><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(titles)}">'
        f'<text x="{LEFT}" y="16" font-weight="600">{escape(titles)}</text>{down}{marks}</svg></div>'
    )
