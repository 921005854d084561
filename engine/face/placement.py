"""Landmarks of a frame as what AnimateNet is told: 68 points with depth, and the head's placement.

Everything is in units of the image: x and y in [0, 1] from its left and top edge, z in the same
unit, larger is farther, 0 at the points that hardly move. numpy only: training and live use it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.face.landmarks import CROP_UNIT, face_unit
from engine.face.topology import OVAL, STABLE

F32 = NDArray[np.float32]

# The usual 68 points as members of the 478: jaw, brows, nose, eyes, outer lips, inner lips.
SIXTY_EIGHT = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
WITHOUT_MOUTH_68 = (*range(4), *range(13, 48))  # DiffTalk's 39: no mouth, no lower jaw

# What the eight placement numbers are. Angles in radians as in `engine.motion.idle.POSE`; x and y of the
# steady points' middle less 0.5; log of the outer eye distance; width and height of the oval.
HEIGHT = 7
PLACEMENT = ("yaw", "pitch", "roll", "x", "y", "log_scale", "width", "height")


def depths(landmarks: F32, yaw: float, pitch: float, depth: F32) -> F32:
    """z of each landmark: a template's depth, turned with the head.

    Args:
        landmarks: (478, 2) in [0, 1].
        depth: (478,) of the face seen from the front, in crop units (`FaceBasis.depth`).

    Returns:
        (478,) in units of the image.
    """
    along = landmarks[263] - landmarks[33]
    roll = np.arctan2(along[1], along[0])
    c, s = np.cos(roll), np.sin(roll)
    steady = list(STABLE)
    x, y = ((landmarks - landmarks[steady].mean(0)) @ np.array([[c, -s], [s, c]])).T
    z = (depth - depth[steady].mean()) * CROP_UNIT * face_unit(landmarks)
    turned = (z + np.sin(yaw) * x) / np.cos(yaw)
    tilted: F32 = ((turned + np.sin(pitch) * y) / np.cos(pitch)).astype(np.float32)
    return tilted


def landmarks_68(landmarks: F32, yaw: float, pitch: float, depth: F32) -> F32:
    """The 68 points with depth (68, 3) of landmarks (478, 2) in [0, 1]."""
    rows = list(SIXTY_EIGHT)
    z = depths(landmarks, yaw, pitch, depth)[rows]
    joined: F32 = np.c_[landmarks[rows], z].astype(np.float32)
    return joined


def placement(landmarks: NDArray[Any], yaw: float, pitch: float) -> F32:
    """Where the head is, (8,) in the order of `PLACEMENT`, of landmarks (478, 2) in [0, 1]."""
    along = landmarks[263] - landmarks[33]
    x, y = landmarks[list(STABLE)].mean(0) - 0.5
    width, height = np.ptp(landmarks[list(OVAL)], axis=0)
    scale = np.log(max(float(np.hypot(*along)), 1e-4))
    roll = np.arctan2(along[1], along[0])
    return np.array([yaw, pitch, roll, x, y, scale, width, height], np.float32)
