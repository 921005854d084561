"""All variants side by side: a row each, a column a person held out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

U8 = NDArray[np.uint8]
TILE, NAMES = 96, 250  # pixels


def side_by_side(rows: Mapping[str, U8]) -> Image.Image:
    """A picture of rows by their titles: frames (P, T, H, W, 3), of which the middle and the last are shown."""
    shown = {
        name: np.concatenate([frames[:, frames.shape[1] // 2], frames[:, -1]])
        for name, frames in rows.items()
    }
    most = max(len(frames) for frames in shown.values())
    sheet = Image.new("RGB", (NAMES + most * TILE, len(rows) * TILE), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (name, frames) in enumerate(shown.items()):
        draw.text((8, line * TILE + TILE // 2 - 6), name, fill="black")
        for at, rgb in enumerate(frames):
            tile = Image.fromarray(rgb).resize((TILE, TILE), Image.Resampling.BICUBIC)
            sheet.paste(tile, (NAMES + at * TILE, line * TILE))
    return sheet
