"""Landmark distances, M-LMD and F-LMD: of the mouth's points and of all 68, in pixels at 256 x 256.

The papers do not say whether landmarks are centred first, nor by which detector; so they are given as they
are, about each frame's own mean, and over the distance of the outer eye corners.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[Any]
MOUTH = slice(48, 68)
EYES = (36, 45)  # outer corners
SIDE = 256.0


def landmark_distances(generated: Points, real: Points, size: tuple[int, int]) -> dict[str, float]:
    """All six of landmarks (T, 68, 2) in pixels of frames of `size` (height, width).

    Raises:
        ValueError: the shapes differ.
    """
    if generated.shape != real.shape or real.shape[1:] != (68, 2):
        raise ValueError(f"wants (T, 68, 2) twice, got {generated.shape} and {real.shape}")
    scale = SIDE / np.array([size[1], size[0]])
    a, b = generated * scale, real * scale
    eyes = np.linalg.norm(b[:, EYES[0]] - b[:, EYES[1]], axis=1)
    values = {}
    for name, rows in (("m_lmd", MOUTH), ("f_lmd", slice(None))):
        apart = np.linalg.norm(a[:, rows] - b[:, rows], axis=-1)
        values[name] = float(apart.mean())
        values[f"{name}_centred"] = float(
            np.linalg.norm(_centred(a[:, rows]) - _centred(b[:, rows]), axis=-1).mean()
        )
        values[f"{name}_iod"] = float((apart.mean(1) / eyes).mean() * 100)
    return values


def _centred(points: Points) -> Points:
    return points - points.mean(1, keepdims=True)
