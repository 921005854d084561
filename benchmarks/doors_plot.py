"""A picture of what `benchmarks.doors` measured: each figure a panel, each door a row, median to 95th percentile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

BARS = {"first_frame": 300, "old_sound": 150, "at_rest": 250, "position_error": 40}  # ms
TITLES = {
    "first_sound": "first sound",
    "first_frame": "first frame",
    "open_lips": "first open lips",
    "old_sound": "old sound",
    "at_rest": "mouth at rest",
    "position_error": "position error",
}
PANEL, ROW, LEFT, TOP, FOOT, GAP = 210, 34, 110, 64, 44, 18
INK, FAINT, GOOD, BAD, BAR = "#222222", "#dddddd", "#2b7a4b", "#b5532a", "#3050a0"


def draw(rows: Sequence[dict[str, Any]], said: str, out: Path) -> None:
    """Write the picture of the benchmark's rows to `out`; `said` is its last line."""
    width = LEFT + len(TITLES) * (PANEL + GAP) + GAP
    image = Image.new("RGB", (width, TOP + ROW * len(rows) + FOOT + 20), "white")
    pen = ImageDraw.Draw(image)
    plain, small = ImageFont.load_default(15), ImageFont.load_default(12)
    pen.text((GAP, 8), "An assistant's voice, received in Chromium: ms", INK, plain)
    for i, row in enumerate(rows):
        pen.text((GAP, TOP + ROW * i + 8), row["door"], INK, plain)
    for column, name in enumerate(TITLES):
        _panel(pen, rows, name, LEFT + column * (PANEL + GAP), small)
    legend = "dot: median; end of the line: 95th percentile; blue: the bar for the 95th percentile"
    pen.text((GAP, image.height - 40), legend, INK, small)
    pen.text((GAP, image.height - 22), said, INK, small)
    image.save(out, optimize=True)


def _panel(
    pen: ImageDraw.ImageDraw,
    rows: Sequence[dict[str, Any]],
    name: str,
    left: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    found = [row.get(name) for row in rows]
    bar = BARS.get(name)
    most = 1.1 * max([bar or 0, *(each["p95"] for each in found if each)], default=1)
    at = {ms: left + PANEL * ms / most for ms in _ticks(most)}
    bottom = TOP + ROW * len(rows)
    pen.text((left, TOP - 24), TITLES[name], INK, font)
    for ms, x in at.items():
        pen.line((x, TOP, x, bottom), FAINT)
        pen.text((x - 8, bottom + 2), f"{ms:g}", INK, font)
    if bar:
        x = left + PANEL * bar / most
        pen.line((x, TOP - 6, x, bottom), BAR, 2)
    for i, each in enumerate(found):
        if each is None:
            continue
        y = TOP + ROW * i + ROW // 2
        median, end = (left + PANEL * each[p] / most for p in ("p50", "p95"))
        colour = INK if bar is None else GOOD if each["p95"] <= bar else BAD
        pen.line((median, y, end, y), colour, 4)
        pen.ellipse((median - 5, y - 5, median + 5, y + 5), colour)


def _ticks(most: float) -> list[float]:
    step = next(s for s in (10, 20, 50, 100, 200, 500, 1000, 1e9) if most / s <= 5)
    return [step * i for i in range(int(most / step) + 1)]
