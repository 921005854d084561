"""Masks drawn from landmarks: the head, the lower face, and random holes. 1 is kept.

They are functions of the landmarks, so a prepared clip stores none: they can never be out of step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.face.topology import JAW, OVAL

F32 = NDArray[np.float32]
NOSE_TIP = 4
_DRAWN = 2  # times finer than asked for, for a soft edge


def _polygon(points: F32, size: int) -> F32:
    """Fill points (N, 2) in [0, 1]: (size, size) in [0, 1]."""
    fine = size * _DRAWN
    canvas = Image.new("L", (fine, fine))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points * fine], fill=255)
    small = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32)
    return small / np.float32(255)


def head_mask(landmarks: F32, size: int) -> F32:
    """The head with some hair and no background: landmarks (478, 2) -> (size, size)."""
    oval = landmarks[list(OVAL)]
    chin, brow = landmarks[152], landmarks[10]
    up = brow - chin
    height = np.linalg.norm(up)
    middle = (chin + brow) / 2
    rise = np.clip((oval - middle) @ up / height**2 + 0.5, 0, 1)[:, None]  # 0 chin, 1 forehead
    grown = middle + (oval - middle) * (1.08 + 0.22 * rise) + up * 0.28 * rise
    return _polygon(grown.astype(np.float32), size)


def lower_face_mask(landmarks: F32, size: int) -> F32:
    """Hide the face from the nose tip down: landmarks (478, 2) in [0, 1] -> (size, size).

    The jaw is hidden too, so that its contour does not give away how far the mouth is open.
    """
    along = landmarks[263] - landmarks[33]
    along = along / np.linalg.norm(along)
    down = np.array([-along[1], along[0]], np.float32)
    unit = np.linalg.norm(landmarks[10] - landmarks[152])
    jaw = landmarks[list(JAW)]
    below = (jaw - landmarks[NOSE_TIP]) @ down
    wide = (
        jaw
        + 0.06 * unit * down
        + 0.05 * unit * np.sign((jaw - landmarks[152]) @ along)[:, None] * along
    )
    lifted = np.where((below > 0)[:, None], wide, wide - below[:, None] * down)
    return np.asarray(1 - _polygon(lifted.astype(np.float32), size), np.float32)


def holes(rng: np.random.RandomState, size: int, share: float, cells: int = 8) -> F32:
    """Random corruption (S, S) of 0 and 1, S = `size`.

    Each of `cells` x `cells` squares is hidden with probability `share`.
    """
    kept = (rng.rand(cells, cells) >= share).astype(np.float32)
    index = np.arange(size) * cells // size
    return kept[np.ix_(index, index)]
