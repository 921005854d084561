"""What the motion network decides: channels, each of which drives one coefficient or a left and right pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.face import arkit

F32 = NDArray[np.float32]

# What the motion net decides; left and right share a value.
CHANNELS: tuple[str, ...] = (
    "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthSmile", "mouthStretch",
    "mouthRollLower", "mouthRollUpper", "mouthPress", "mouthLowerDown", "mouthUpperUp",
    "tongueOut",
)  # fmt: skip
# What animators agree on though they share it out differently: one rounds lips by the funnel alone,
# another by the pucker. The sum of the channels stands for the group.
ARKIT_GROUPS: dict[str, tuple[str, ...]] = {
    "jaw": ("jawOpen",),
    "rounding": ("mouthFunnel", "mouthPucker"),
    "press+roll": ("mouthPress", "mouthRollLower", "mouthRollUpper"),
}


def group_matrix() -> F32:
    """0/1 matrix (12, 3) of channels and groups: the channels that a group sums up."""
    return np.array([[c in g for g in ARKIT_GROUPS.values()] for c in CHANNELS], np.float32)


def spread_matrix() -> F32:
    """0/1 matrix (12, 52): channel -> the one or two coefficients it drives."""
    matrix = np.zeros((len(CHANNELS), arkit.COUNT), np.float32)
    for i, name in enumerate(CHANNELS):
        for j, full in enumerate(arkit.NAMES):
            matrix[i, j] = full in (name, name + "Left", name + "Right")
    return matrix
