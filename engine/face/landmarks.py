"""Landmarks as numbers: the painted crop, head pose as a similarity, lip gap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.face.topology import STABLE

Points = NDArray[np.float32]  # (478, 2)
Affine = NDArray[np.float32]  # (2, 3): p' = A[:, :2] @ p + A[:, 2]

CROP_UNIT = 0.78  # of the eye line plus eyes-to-nose distance
CROP_DROP = 0.34  # crop centre below the nose, in the same unit


def face_unit(landmarks: Points) -> float:
    """Outer eye distance plus eyes-to-nose-base distance of landmarks (478, 2), in their unit.

    It barely moves with expression.
    """
    eyes = landmarks[[33, 263]]
    return float(np.linalg.norm(eyes[1] - eyes[0]) + np.linalg.norm(landmarks[2] - eyes.mean(0)))


def _affine(matrix: NDArray[Any], shift: NDArray[Any]) -> Affine:
    joined: Affine = np.c_[matrix, shift].astype(np.float32)
    return joined


def crop_transform(landmarks: Points) -> Affine:
    """Affine (2, 3) from image pixels to crop units, where the crop is [0, 1] x [0, 1].

    Landmarks (478, 2) are in pixels. The crop is a square around the mouth, level with the eyes,
    sized by points that do not move with expression.
    """
    right, left = landmarks[33], landmarks[263]
    along = (left - right) / np.linalg.norm(left - right)
    down = np.array([-along[1], along[0]], np.float32)
    unit = face_unit(landmarks)
    centre = landmarks[2] + CROP_DROP * unit * down
    matrix = np.stack([along, down]) / (CROP_UNIT * unit)
    return _affine(matrix, 0.5 - matrix @ centre)


def invert(affine: Affine) -> Affine:
    """The affine (2, 3) that undoes `affine` (2, 3)."""
    matrix = np.linalg.inv(affine[:, :2])
    return _affine(matrix, -matrix @ affine[:, 2])


def compose(after: Affine, before: Affine) -> Affine:
    """The affine (2, 3) that applies `before` (2, 3), then `after` (2, 3)."""
    return _affine(after[:, :2] @ before[:, :2], after[:, :2] @ before[:, 2] + after[:, 2])


def apply(affine: Affine, points: NDArray[Any]) -> Points:
    """Points (..., 2) moved by `affine` (2, 3)."""
    moved: Points = (points @ affine[:, :2].T + affine[:, 2]).astype(np.float32)
    return moved


def similarity(source: NDArray[Any], target: NDArray[Any]) -> Affine:
    """Least-squares rotation, scale and shift that takes `source` to `target` ((N, 2) each)."""
    a = (source - source.mean(0)) @ np.array([1, 1j])
    b = (target - target.mean(0)) @ np.array([1, 1j])
    k = np.vdot(a, b) / np.vdot(a, a)
    matrix = np.array([[k.real, -k.imag], [k.imag, k.real]])
    return _affine(matrix, target.mean(0) - matrix @ source.mean(0))


def head_shift(reference: Points, target: Points) -> NDArray[np.float32]:
    """In-plane head motion between two faces: roll [rad], x, y [inter-ocular], log scale -> (4,)."""
    stable = list(STABLE)
    fit = similarity(reference[stable], target[stable])
    scale = np.hypot(fit[0, 0], fit[1, 0])
    span = np.linalg.norm(reference[33] - reference[263])
    shift = (target[stable].mean(0) - reference[stable].mean(0)) / span
    return np.array([np.arctan2(fit[1, 0], fit[0, 0]), *shift, np.log(scale)], np.float32)


def lip_gap(landmarks: NDArray[Any]) -> Any:
    """Inner lip gap over face height, landmarks 13-14 over 10-152: (..., 478, 2) -> (...)."""
    gap = np.linalg.norm(landmarks[..., 13, :2] - landmarks[..., 14, :2], axis=-1)
    return gap / np.linalg.norm(landmarks[..., 10, :2] - landmarks[..., 152, :2], axis=-1)


def mouth_width(landmarks: NDArray[Any]) -> Any:
    """Distance of the lip corners over that of the outer eye corners, 61-291 over 33-263: (..., 478, 2) -> (...)."""
    wide = np.linalg.norm(landmarks[..., 61, :2] - landmarks[..., 291, :2], axis=-1)
    return wide / np.linalg.norm(landmarks[..., 33, :2] - landmarks[..., 263, :2], axis=-1)
