"""The 52 face coefficients every part uses: names, order, left/right pairs, index."""

from __future__ import annotations

import difflib

import numpy as np
from numpy.typing import NDArray

NAMES: tuple[str, ...] = (
    "eyeBlinkLeft",
    "eyeLookDownLeft",
    "eyeLookInLeft",
    "eyeLookOutLeft",
    "eyeLookUpLeft",
    "eyeSquintLeft",
    "eyeWideLeft",
    "eyeBlinkRight",
    "eyeLookDownRight",
    "eyeLookInRight",
    "eyeLookOutRight",
    "eyeLookUpRight",
    "eyeSquintRight",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawRight",
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthLeft",
    "mouthRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)
COUNT = len(NAMES)
_INDEX = {name: i for i, name in enumerate(NAMES)}


def index(name: str) -> int:
    """Position of coefficient `name`; raises ValueError that names the nearest known one."""
    if name not in _INDEX:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise ValueError(
            f"no coefficient {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return _INDEX[name]


def indices(*names: str) -> NDArray[np.intp]:
    """Positions (N,) of N coefficients, ready to index the last axis of an array.

    Raises:
        ValueError: as `index`.
    """
    return np.array([index(name) for name in names], np.intp)


PAIRS: tuple[tuple[int, int], ...] = tuple(
    (i, _INDEX[name.replace("Left", "Right")]) for i, name in enumerate(NAMES) if "Left" in name
)
MIRROR: NDArray[np.intp] = np.arange(COUNT, dtype=np.intp)  # coefficients[MIRROR] mirrors the face
for _left, _right in PAIRS:
    MIRROR[[_left, _right]] = MIRROR[[_right, _left]]
MIRROR.flags.writeable = False

EYES: NDArray[np.intp] = indices(*(n for n in NAMES if n.startswith("eye")))
BROWS: NDArray[np.intp] = indices(*(n for n in NAMES if n.startswith("brow")))
MOUTH: NDArray[np.intp] = indices(
    *(n for n in NAMES if n.startswith(("jaw", "mouth", "tongue")) or n == "cheekPuff")
)
