"""The square around a head that a full-size frame is: cut from a portrait, and landmarks in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.face.framing import cut_square, head_square
from engine.face.landmarks import Affine
from engine.face.topology import LEFT_LIDS, RIGHT_LIDS
from engine.render.base import Portrait
from engine.types import RgbImage

F32 = NDArray[np.float32]


def cut_head(portrait: Portrait, side: int) -> tuple[RgbImage, Affine]:
    """Cut the square around a head, scaled to `side` pixels, framed as clips are prepared.

    Returns:
        RGB (side, side, 3), and the affine (2, 3) from pixels of the portrait to pixels of it.
    """
    corner, room = head_square(portrait.landmarks[None], *portrait.rgb.shape[:2])
    scale = side / room
    to_square = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]], "f")
    return cut_square(portrait.rgb, corner, room, side), to_square


def close_lids(target: F32, blink: F32) -> F32:
    """Bring each eye's upper lid down by `blink` (2,), right and left: landmarks (478, 2)."""
    closed = target.copy()
    for amount, (upper, lower) in zip(blink, (RIGHT_LIDS, LEFT_LIDS), strict=True):
        closed[list(upper)] += amount * (target[list(lower)] - target[list(upper)])
    return closed
