"""Whether a video flickers, and whether it drifts away from its beginning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import FPS
from engine.evaluation.track import FaceTrack
from engine.face.detector import face_box
from engine.render.lab import LUMA, to_lab

F64 = NDArray[np.float64]
START = FPS  # frames of the beginning that later ones are held against


def flicker(frames: NDArray[np.uint8]) -> F64:
    """Mean second difference in time of the luma of frames (T, H, W, 3), in levels -> (T - 2,).

    Steady motion has none of it; what jumps forth and back has twice its height.
    """
    found = []
    before: list[NDArray[np.float32]] = []
    for rgb in frames:
        before = [*before[-2:], rgb @ LUMA]
        if len(before) == 3:
            found.append(float(np.abs(before[0] - 2 * before[1] + before[2]).mean()))
    return np.array(found)


def slope_a_minute(track: NDArray[Any]) -> float:
    """Slope of a straight line through a track (T,) at 25 a second, a minute; 0 for less than two."""
    if len(track) < 2:
        return 0.0
    minutes = np.arange(len(track)) / FPS / 60
    return float(np.polyfit(minutes, np.asarray(track, np.float64), 1)[0])


def face_colours(frames: NDArray[np.uint8], track: FaceTrack) -> F64:
    """Mean Lab (T, 3) of the face in each of frames (T, H, W, 3)."""
    colours = []
    for rgb, points in zip(frames, track.landmarks, strict=True):
        left, top, right, bottom = (int(v) for v in np.maximum(face_box(points), 0))
        face = rgb[top : max(bottom, top + 1), left : max(right, left + 1)]
        colours.append(to_lab((face if face.size else rgb) / 255).reshape(-1, 3).mean(0))
    return np.array(colours, np.float64)


def apart_from_start(features: NDArray[Any]) -> F64:
    """Distance (T,) of colours or features (T, d) from their mean over the first second."""
    return np.linalg.norm(features - features[:START].mean(0), axis=1)
