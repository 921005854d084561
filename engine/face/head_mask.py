"""The head drawn from landmarks, and a picture without what is behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.face.topology import OVAL
from engine.types import RgbImage

F32 = NDArray[np.float32]
GREY = 127
_DRAWN = 2  # times finer than asked for, for a soft edge


def polygon(points: NDArray[Any], size: int) -> F32:
    """Fill points (N, 2) in [0, 1]: (size, size) in [0, 1]."""
    fine = size * _DRAWN
    canvas = Image.new("L", (fine, fine))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points * fine], fill=255)
    small = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32)
    return small / np.float32(255)


def head_mask(landmarks: F32, size: int) -> F32:
    """The head with some hair and no background: landmarks (478, 2) in [0, 1] -> (size, size)."""
    oval = landmarks[list(OVAL)]
    chin, brow = landmarks[152], landmarks[10]
    up = brow - chin
    height = np.linalg.norm(up)
    middle = (chin + brow) / 2
    rise = np.clip((oval - middle) @ up / height**2 + 0.5, 0, 1)[:, None]  # 0 chin, 1 forehead
    grown = middle + (oval - middle) * (1.08 + 0.22 * rise) + up * 0.28 * rise
    return polygon(grown.astype(np.float32), size)


def without_background(rgb: RgbImage, landmarks: F32) -> RgbImage:
    """Grey outside the head, as face encoders are shown a person: training and use alike.

    Args:
        rgb: a square (S, S, 3).
        landmarks: (478, 2) in [0, 1] of it.
    """
    mask = head_mask(landmarks, rgb.shape[0])[..., None]
    return (rgb * mask + GREY * (1 - mask)).astype(np.uint8)
