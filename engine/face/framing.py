"""The square around a head that the full-size system draws: one rule for training and for use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.types import RgbImage

F32 = NDArray[np.float32]
SIDE = 512  # pixels of a square as clips are prepared, and as face encoders see it
MARGIN = 2.0  # side of the square over the face's
LIFT = 0.12  # of the face's side: landmarks end below the hair
ROOM = 0.4  # of the face's side around one that moves about, both edges together


def head_square(landmarks: NDArray[Any], height: int, width: int) -> tuple[F32, float]:
    """The square that holds one face in every frame of a piece, or in a portrait.

    Near an edge of the picture it is moved inside; where the picture is smaller it is smaller too, but
    never smaller than what the face moves over.

    Args:
        landmarks: (T, 478, 2) in pixels of pictures of `height` and `width`.

    Returns:
        its left upper corner (2,), x and y, and its side, in pixels.
    """
    low, high = landmarks.min((0, 1)), landmarks.max((0, 1))
    usual = float(np.median(np.ptp(landmarks, axis=1).max(1)))
    moves = float((high - low).max())
    side = max(MARGIN * usual, moves + ROOM * usual)
    side = max(min(side, height, width), moves)
    corner = (low + high) / 2 - side / 2 - [0, LIFT * usual]
    room = np.array([width, height]) - side
    inside = np.where(room > 0, np.clip(corner, 0, np.maximum(room, 0)), room / 2)
    return inside.astype(np.float32), side


def cut_square(rgb: RgbImage, corner: Any, side: float, size: int) -> RgbImage:
    """The square from `corner` (x, y) of `side` pixels, as (size, size, 3); black outside."""
    x, y = corner.tolist()
    image = Image.fromarray(rgb)
    left, top = int(np.floor(min(x, 0))), int(np.floor(min(y, 0)))
    right = int(np.ceil(max(x + side, image.width)))
    bottom = int(np.ceil(max(y + side, image.height)))
    if (left, top, right, bottom) != (0, 0, image.width, image.height):
        image = image.crop((left, top, right, bottom))  # outside is black
    box = (x - left, y - top, x + side - left, y + side - top)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box))
