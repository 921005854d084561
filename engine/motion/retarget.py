"""Coefficients and head pose -> the portrait's landmarks: L_t = pose_t(L_neutral + basis * c_t).

All in crop units of the portrait (see `engine.face.landmarks.crop_transform`). The neutral face is
worked out once at enrolment: a portrait that smiles with teeth must be able to close its mouth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import WeightsError
from engine.face import arkit
from engine.face.landmarks import lip_gap
from engine.face.topology import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LOWER_RINGS,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    POINTS,
    UPPER_RINGS,
)

F32 = NDArray[np.float32]

KEPT_SMILE = 0.35  # how much of the portrait's smile its neutral face keeps
UPPER_SHARE = 0.35  # of a remaining gap that the upper lip closes, the lower lip the rest
PIVOT = np.array([0.5, 0.35, 0.9], np.float32)  # of the head in crop units: between the ears
_MOUTH = np.array([n.startswith(("mouth", "jaw", "cheek")) for n in arkit.NAMES])
_SMILE = np.array([n.startswith(("mouthSmile", "mouthDimple", "cheekSquint")) for n in arkit.NAMES])
BLINKS = [arkit.NAMES.index(n) for n in ("eyeBlinkRight", "eyeBlinkLeft")]

# Speech is in ARKit's units, the basis in those of the scores it was fitted to; and a ridge on scores that
# are read from pictures moves too little. How much more a coefficient of speech moves, across and down. Fitted
# on 1,214 faces of SFHQ-T2I (the width of the mouth falls by .18 a unit of pucker and .35 of funnel, where the
# basis has .11 and .08; the gap rises by .17 a unit of funnel and .12 of the lower lip, basis .06 and .08) and
# on how far people part and round their lips as they speak.
_GAINS = {
    "jawOpen": (1.0, 1.6),
    "mouthLowerDown": (1.0, 1.6),
    "mouthUpperUp": (1.0, 1.6),
    "mouthFunnel": (3.0, 1.0),
    "mouthPucker": (4.0, 1.0),
}
_GAINED = {
    i: np.array(gain, np.float32) - 1
    for stem, gain in _GAINS.items()
    for i, n in enumerate(arkit.NAMES)
    if n.startswith(stem)
}
_GAINED_ROWS = list(_GAINED)
_MORE = np.array(list(_GAINED.values()))
_REACH = 0.7  # widths of the mouth over which what is more fades, towards cheeks and collar

# Pressing lips means that they touch, which a sum of displacements does not say: with the phone rules'
# own coefficients p, b and m stay open by .003-.012 of the face. From the first number to the
# second, of press + roll of the upper lip + close, the lips are brought together.
SEAL = (0.07, 0.13)
# Lips that are nearer than this share of the face's height cling to each other, the more the nearer.
CLING = 0.015
_SEALS = np.array(
    [
        0.5 if n.startswith("mouthPress") else float(n in ("mouthRollUpper", "mouthClose"))
        for n in arkit.NAMES
    ],
    np.float32,
)
PRESSED = [i for i, n in enumerate(arkit.NAMES) if n.startswith(("mouthRoll", "mouthPress"))]


@dataclass(frozen=True, slots=True)
class FaceBasis:
    """What each coefficient moves, and how deep each point lies; shared by all portraits."""

    basis: F32  # (52, 478, 2) crop units per unit of coefficient
    depth: F32  # (478,) crop units, larger is farther

    @classmethod
    def load(cls, path: Path) -> FaceBasis:
        """Read `basis.npz`.

        Raises:
            WeightsError: the file is missing or holds other shapes.
        """
        try:
            with np.load(path) as saved:
                basis, depth = saved["basis"].astype(np.float32), saved["depth"].astype(np.float32)
        except (OSError, KeyError, ValueError) as error:
            raise WeightsError(f"{path} is not a readable landmark basis: {error}") from error
        if basis.shape != (arkit.COUNT, POINTS, 2) or depth.shape != (POINTS,):
            raise WeightsError(
                f"{path}: wants (52, 478, 2) and (478,), got {basis.shape}, {depth.shape}"
            )
        basis[BLINKS] = 0  # lids close by a field of their own, all the way
        return cls(basis, depth)

    def move(self, coefficients: F32) -> F32:
        """Displacement (478, 2) of coefficients (52,)."""
        moved: F32 = np.tensordot(coefficients, self.basis, 1)
        return moved


def neutral_face(landmarks: F32, coefficients: F32, basis: FaceBasis) -> F32:
    """The portrait with its mouth closed and at ease.

    Args:
        landmarks: (478, 2) of the portrait in crop units.
        coefficients: (52,) what the portrait's face does.
    """
    wanted = np.where(_MOUTH, coefficients * np.where(_SMILE, KEPT_SMILE, 0), coefficients)
    face = landmarks + basis.move((wanted - coefficients).astype(np.float32))
    return close_lips(face)


def close_lips(face: F32) -> F32:
    """A copy of landmarks (478, 2) with the gap between the inner lips closed."""
    closed = face.copy()
    gap = face[list(INNER_LOWER_LIP)] - face[list(INNER_UPPER_LIP)]  # (11, 2)
    for row, fade in (
        (INNER_UPPER_LIP, 1.0),
        *zip(UPPER_RINGS[::-1], (0.95, 0.85), strict=True),
        (OUTER_UPPER_LIP, 0.75),
    ):
        closed[list(row)] += UPPER_SHARE * fade * gap
    for row, fade in (
        (INNER_LOWER_LIP, 1.0),
        *zip(LOWER_RINGS[::-1], (0.95, 0.85), strict=True),
        (OUTER_LOWER_LIP, 0.75),
    ):
        closed[list(row)] -= (1 - UPPER_SHARE) * fade * gap
    chin = [18, 83, 313, 182, 406, 200, 201, 421, 199, 175, 152, 148, 377, 171, 396, 208, 428]
    closed[chin] -= (1 - UPPER_SHARE) * 0.45 * gap[5]
    return closed


def uncross_lips(face: F32) -> F32:
    """Let both inner lips meet in the middle where the lower one went above the upper one.

    Changes landmarks (478, 2) in place and returns them.
    """
    upper, lower = list(INNER_UPPER_LIP), list(INNER_LOWER_LIP)
    overlap = np.maximum(face[upper, 1] - face[lower, 1], 0)
    face[upper, 1] -= overlap / 2
    face[lower, 1] += overlap / 2
    return face


def turn_head(face: F32, depth: F32, pose: F32) -> F32:
    """Rotate and shift a face (478, 2) by pose (6,): yaw, pitch, roll, x, y, log scale."""
    yaw, pitch, roll, x, y, log_scale = pose
    point = np.c_[face, depth] - PIVOT
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    across, down, away = point.T
    across, away = cy * across - sy * away, sy * across + cy * away
    down, away = cp * down - sp * away, sp * down + cp * away
    cr, sr = np.cos(roll), np.sin(roll)
    turned = np.stack([cr * across - sr * down, sr * across + cr * down], 1) * np.exp(log_scale)
    placed: F32 = (turned + PIVOT[:2] + np.array([x, y])).astype(np.float32)
    return placed


def retarget(
    neutral: F32, basis: FaceBasis, coefficients: F32, pose: F32, expression: F32 | float = 0.0
) -> F32:
    """Landmarks (478, 2) of one frame from coefficients (52,) and pose (6,).

    Args:
        expression: displacement (478, 2) that an expression adds to the neutral face.
    """
    face = uncross_lips(neutral + speak(neutral, basis, coefficients) + expression)
    shut = max(sealed(coefficients), 1 - _eased(float(lip_gap(face)) / CLING))
    if shut:
        face = face + np.float32(shut) * (close_lips(face) - face)
    return turn_head(face, basis.depth, pose)


def speak(neutral: F32, basis: FaceBasis, coefficients: F32) -> F32:
    """Displacement (478, 2) of a neutral face (478, 2) by coefficients (52,) of speech."""
    moved = basis.move(coefficients)
    rows, given = basis.basis[_GAINED_ROWS], coefficients[_GAINED_ROWS]
    corners = neutral[[INNER_UPPER_LIP[0], INNER_UPPER_LIP[-1]]]
    reach = np.float32(_REACH * np.linalg.norm(corners[1] - corners[0]) + 1e-6)
    away = np.square((neutral - corners.mean(0)) / reach).sum(1, keepdims=True)
    moved += np.exp(-0.5 * away) * np.einsum("ca,cpa->pa", given[:, None] * _MORE, rows)
    return moved


def sealed(coefficients: F32) -> float:
    """How far coefficients (52,) shut the lips, in [0, 1]."""
    return _eased((float(_SEALS @ coefficients) - SEAL[0]) / (SEAL[1] - SEAL[0]))


def _eased(share: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    within = min(max(share, 0.0), 1.0)
    return within * within * (3 - 2 * within)
