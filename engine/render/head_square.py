"""The square around a head that a full-size frame is: cut from a portrait, and landmarks in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.face.landmarks import Affine
from engine.face.topology import LEFT_LIDS, OVAL, RIGHT_LIDS
from engine.render.base import Portrait
from engine.types import RgbImage

F32 = NDArray[np.float32]
HEAD_ROOM = 2.0  # side of the square over the height of the face


def cut_square(portrait: Portrait, side: int) -> tuple[RgbImage, Affine]:
    """Cut the square around a head, scaled to `side` pixels.

    Where the head is near the image's edge, the square is moved inside, and made smaller if need be.

    Returns:
        RGB (side, side, 3), and the affine (2, 3) from pixels of the portrait to pixels of it.
    """
    face = portrait.landmarks[list(OVAL)]
    low, high = face.min(0), face.max(0)
    height, width = portrait.rgb.shape[:2]
    room = float(min(HEAD_ROOM * (high[1] - low[1]), height, width))
    corner = np.clip((low + high) / 2 - room / 2, 0, [width - room, height - room])
    box = (*corner, *(corner + room))
    cut = Image.fromarray(portrait.rgb).resize((side, side), Image.Resampling.LANCZOS, box=box)
    scale = side / room
    to_square = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]], "f")
    return np.asarray(cut), to_square


def close_lids(target: F32, blink: F32) -> F32:
    """Bring each eye's upper lid down by `blink` (2,), right and left: landmarks (478, 2)."""
    closed = target.copy()
    for amount, (upper, lower) in zip(blink, (RIGHT_LIDS, LEFT_LIDS), strict=True):
        closed[list(upper)] += amount * (target[list(lower)] - target[list(upper)])
    return closed
