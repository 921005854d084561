"""Masks drawn from landmarks: the lower face, and random holes. 1 is kept.

They are functions of the landmarks, so a prepared clip stores none: they can never be out of step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.face.head_mask import polygon
from engine.face.topology import JAW

F32 = NDArray[np.float32]
NOSE_TIP = 4


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
    return np.asarray(1 - polygon(lifted.astype(np.float32), size), np.float32)


def holes(rng: np.random.RandomState, size: int, share: float, cells: int = 8) -> F32:
    """Random corruption (S, S) of 0 and 1, S = `size`.

    Each of `cells` x `cells` squares is hidden with probability `share`.
    """
    kept = (rng.rand(cells, cells) >= share).astype(np.float32)
    index = np.arange(size) * cells // size
    return kept[np.ix_(index, index)]
