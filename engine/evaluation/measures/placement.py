"""Where the head stands in generated frames, beside where it was commanded to stand.

Pose-given, the film's own head is the command. Both are read by the same networks, so what those get wrong
in both frames alike is no error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.track import FaceTrack
from engine.face.placement import PLACEMENT, placement

Rows = NDArray[Any]
YAW, PITCH, ROLL, X, Y, LOG_SCALE = range(6)


def placements(track: FaceTrack, scale: Rows | float, width: int) -> Rows:
    """Placement of each frame of a track, (T, 8) in the order of `engine.face.placement.PLACEMENT`.

    Args:
        scale: of pixels (2,), to frames of `width` pixels, in which x and y are measured.
    """
    unit = track.landmarks * scale / width
    turned = np.radians(track.angles[:, :2])
    return np.stack([placement(p, *a) for p, a in zip(unit, turned, strict=True)])


def placement_errors(commanded: Rows, read: Rows) -> dict[str, float]:
    """Mean distance of placements (T, 8) as read from those commanded.

    Angles in degrees, the shift in percent of the commanded distance of the outer eye corners, the size in
    percent.

    Raises:
        ValueError: the shapes differ.
    """
    if commanded.shape != read.shape or commanded.shape[1:] != (len(PLACEMENT),):
        raise ValueError(f"wants (T, {len(PLACEMENT)}) twice, got {commanded.shape}, {read.shape}")
    apart = read - commanded
    angles = np.degrees(np.abs((apart[:, : ROLL + 1] + np.pi) % (2 * np.pi) - np.pi)).mean(0)
    moved = np.hypot(apart[:, X], apart[:, Y]) / np.exp(commanded[:, LOG_SCALE])
    return {
        "head_yaw_error": float(angles[YAW]),
        "head_pitch_error": float(angles[PITCH]),
        "head_roll_error": float(angles[ROLL]),
        "head_shift_error": float(100 * moved.mean()),
        "head_size_error": float(100 * np.abs(np.expm1(apart[:, LOG_SCALE])).mean()),
    }
