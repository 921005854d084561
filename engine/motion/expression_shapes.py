"""What the coefficients of an expression move, modelled on one portrait's own landmarks.

`FaceBasis` is learned from speech, where brows, lids and corners of the mouth hardly move on their
own. An expression needs just those, so its rows are written down: each is a sum of smooth bumps
around landmarks. A smooth field moves points that lie on each other alike, so closed lips stay
closed under every one of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from engine.face import arkit
from engine.face.topology import LEFT_IRIS, LEFT_LIDS, POINTS, RIGHT_IRIS, RIGHT_LIDS

F32 = NDArray[np.float32]
# Right then left, as the person sees it. The right side is the image's left.
SIDES = (("Right", -1.0), ("Left", 1.0))
_CORNER = {"Right": 61, "Left": 291}
_CHEEK = {"Right": 50, "Left": 280}
_BROW = {
    "Right": (107, 55, 66, 65, 105, 52, 63, 53, 70, 46),
    "Left": (336, 285, 296, 295, 334, 282, 293, 283, 300, 276),
}  # upper and lower edge, inner to outer
_WING = {"Right": 98, "Left": 327}
_LIDS = {"Right": RIGHT_LIDS, "Left": LEFT_LIDS}
_IRIS = {"Right": RIGHT_IRIS, "Left": LEFT_IRIS}
_EYES = [
    *{
        p
        for rows in (*_LIDS.values(), *_IRIS.values())
        for row in rows
        for p in (row if isinstance(row, tuple) else (row,))
    }
]


class _Shapes:
    """Rows under construction; lengths in units of the distance between the outer eye corners."""

    def __init__(self, neutral: F32) -> None:
        self.face = neutral
        self.unit = float(np.linalg.norm(neutral[263] - neutral[33]))
        self.rows = np.zeros((arkit.COUNT, POINTS, 2), np.float32)

    def bump(
        self,
        name: str,
        centres: Iterable[int],
        move: tuple[float, float],
        width: float,
        *,
        eyes: float = 1.0,
    ) -> None:
        """Add to row `name` what moves its `centres` by `move` and fades over `width`."""
        away = self.face[:, None] - self.face[list(centres)]
        near = np.exp(-np.square(away).sum(-1) / (2 * (width * self.unit) ** 2)).max(1)
        near[_EYES] *= eyes
        self.rows[arkit.index(name)] += near[:, None] * np.array(move, np.float32) * self.unit

    def lid(self, name: str, row: tuple[int, ...], lift: float) -> None:
        """Move a lid's edge, corners at rest, by `lift` eye openings."""
        points = list(row)
        arch = np.sin(np.linspace(0, np.pi, len(points), dtype=np.float32))
        self.rows[arkit.index(name)][points, 1] += lift * arch * self.unit


def face_shapes(neutral: F32, jaw: F32) -> F32:
    """Displacement of every point by one unit of each coefficient: (52, 478, 2), crop units.

    Args:
        neutral: landmarks (478, 2) in crop units, mouth closed.
        jaw: what opening the jaw moves (478, 2), as learned.
    """
    make = _Shapes(neutral)
    make.rows[arkit.index("jawOpen")] = jaw
    for side, out in SIDES:
        corner, cheek, brow = [_CORNER[side]], [_CHEEK[side]], _BROW[side]
        upper, lower = _LIDS[side]
        make.bump(f"mouthSmile{side}", corner, (0.085 * out, -0.085), 0.17, eyes=0)
        make.bump(f"mouthSmile{side}", cheek, (0.01 * out, -0.03), 0.16, eyes=0.4)
        make.bump(f"mouthFrown{side}", corner, (0.01 * out, 0.095), 0.15, eyes=0)
        make.bump(f"mouthStretch{side}", corner, (0.09 * out, 0.03), 0.17, eyes=0)
        make.bump("mouthPucker", corner, (-0.07 * out, 0), 0.17, eyes=0)
        make.bump(f"cheekSquint{side}", cheek, (0, -0.05), 0.17, eyes=0.5)
        make.bump(f"noseSneer{side}", [_WING[side]], (0.01 * out, -0.05), 0.10, eyes=0)
        make.bump(f"browOuterUp{side}", brow[4:], (0, -0.08), 0.11, eyes=0)
        make.bump("browInnerUp", brow[:4], (0, -0.08), 0.13, eyes=0)
        make.bump(f"browDown{side}", brow[:6], (-0.035 * out, 0.075), 0.09, eyes=0)
        make.lid(f"eyeWide{side}", upper, -0.045)
        make.lid(f"eyeWide{side}", lower, 0.012)
        make.lid(f"eyeSquint{side}", lower, -0.03)
        make.lid(f"eyeSquint{side}", upper, 0.03)
    return make.rows
