"""Labelled faces -> crops of one person with other expressions, augmented alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from engine.errors import DataError
from engine.face.landmarks import apply, crop_transform, head_shift, lip_gap
from engine.nets.painter import CROP_SIDE

MARGIN = 1.5  # stored patch over crop
PATCH = int(CROP_SIDE * MARGIN)


@dataclass(frozen=True, slots=True)
class Face:
    """One image of one person, cut to a patch of the person's own frame."""

    patch: NDArray[np.uint8]  # (PATCH, PATCH, 3)
    landmarks: NDArray[np.float32]  # (478, 2) in patch pixels
    pose: NDArray[np.float32]  # (3,) yaw, pitch, roll [rad]


@dataclass(frozen=True, slots=True)
class Triple:
    """Reference, an earlier frame and the target, each (B, ...), crops in [-1, 1]."""

    reference: Tensor  # (B, 3, 128, 128)
    reference_landmarks: Tensor  # (B, 478, 2) crop units
    earlier_landmarks: Tensor
    earlier_placement: Tensor  # (B, 6)
    target: Tensor
    target_landmarks: Tensor
    target_placement: Tensor

    def rows(self, count: int) -> Triple:
        """The first `count` triples."""
        return Triple(*(getattr(self, name)[:count] for name in self.__slots__))


def euler(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Yaw, pitch, roll (3,) in radians of a head pose (4, 4)."""
    r = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return np.array(
        [
            np.arctan2(-r[2, 0], np.hypot(r[0, 0], r[1, 0])),
            np.arctan2(r[2, 1], r[2, 2]),
            np.arctan2(r[1, 0], r[0, 0]),
        ],
        np.float32,
    )


def load_people(folder: Path, least: int = 3) -> list[list[Face]]:
    """Read every chunk under `folder`; people with fewer than `least` images are left out.

    Raises:
        DataError: there is no chunk.
    """
    files = sorted(folder.glob("chunk_????.npz"))
    if not files:
        raise DataError(
            f"no chunk_NNNN.npz under {folder}; run `python -m engine.training.data.faces` first"
        )
    people: list[list[Face]] = []
    for file in files:
        with np.load(file) as saved:
            rows = {
                name: saved[name] for name in ("person", "bytes", "offsets", "landmarks", "pose")
            }
        for person in np.unique(rows["person"]):
            faces = _person(rows, np.flatnonzero(rows["person"] == person))
            if len(faces) >= least:
                people.append(faces)
    return people


def _person(rows: dict[str, NDArray[Any]], indices: NDArray[np.int64]) -> list[Face]:
    images: list[Any] = [
        cv2.imdecode(rows["bytes"][rows["offsets"][i] : rows["offsets"][i + 1]], cv2.IMREAD_COLOR)
        for i in indices
    ]
    points = [
        rows["landmarks"][i, :, :2] * np.float32(p.shape[0])
        for i, p in zip(indices, images, strict=True)
    ]
    to_patch = crop_transform(points[0]) * CROP_SIDE  # the first image sets the person's frame
    to_patch[:, 2] += (PATCH - CROP_SIDE) / 2
    faces = []
    for i, image, landmarks in zip(indices, images, points, strict=True):
        patch: NDArray[Any] = cv2.warpAffine(
            image[:, :, ::-1],
            to_patch,
            (PATCH, PATCH),
            flags=cv2.INTER_AREA,
            borderMode=cv2.BORDER_REFLECT,
        )
        faces.append(Face(patch, apply(to_patch, landmarks), euler(rows["pose"][i])))
    return faces


def mirror_order(people: Sequence[Sequence[Face]]) -> NDArray[np.int64]:
    """For each landmark (478,) its partner on the other side of the face, from mean positions."""
    mean = np.mean([f.landmarks for faces in people[:200] for f in faces[:1]], 0)
    mean = mean - mean[[33, 263]].mean(0)
    flipped = mean * np.array([-1, 1])
    cost = ((flipped[:, None] - mean[None]) ** 2).sum(-1)
    _, partner = linear_sum_assignment(cost + cost.T)
    return np.asarray(partner, np.int64)


class Pairs:
    """Draws augmented triples; `seed` fixes the order for one worker.

    Args:
        people: what `load_people` returned (or a part of it).
        augment: off for evaluation.
    """

    def __init__(
        self, people: list[list[Face]], mirror: NDArray[np.int64], *, augment: bool = True
    ) -> None:
        self.people, self.mirror, self.augment = people, mirror, augment

    def batch(self, size: int, rng: np.random.RandomState) -> Triple:
        """Draw `size` triples."""
        rows = [self._draw(self.people[rng.randint(len(self.people))], rng) for _ in range(size)]
        return Triple(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))

    def fixed(self, per_person: int = 2) -> Triple:
        """The same triples every time: reference 0, earlier i, target i + 1 of each person."""
        rng = np.random.RandomState(0)
        rows = [
            self._cut([faces[0], faces[i], faces[i + 1]], rng)
            for faces in self.people
            for i in range(1, min(per_person + 1, len(faces) - 1))
        ]
        return Triple(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))

    def _draw(
        self, faces: list[Face], rng: np.random.RandomState
    ) -> tuple[NDArray[np.float32], ...]:
        gap = np.array([lip_gap(f.landmarks) for f in faces])
        a = rng.randint(len(faces))
        weight = np.abs(gap - gap[a]) + 0.02  # mouths that must open or close teach the most
        weight[a] = 0
        b, c = rng.choice(len(faces), 2, replace=False, p=weight / weight.sum())
        if rng.rand() < 0.5:
            b, c = c, b
        return self._cut([faces[a], faces[b], faces[c]], rng)

    def _cut(
        self, chosen: list[Face], rng: np.random.RandomState
    ) -> tuple[NDArray[np.float32], ...]:
        reference, earlier, target = chosen
        to_unit = crop_transform(reference.landmarks)
        if self.augment:
            to_unit = _jitter(rng) @ np.r_[to_unit, [[0, 0, 1]]].astype(np.float32)
        points = [apply(to_unit, f.landmarks) for f in chosen]
        yaw_pitch = [f.pose[:2] - reference.pose[:2] for f in chosen]
        crops = [
            cv2.warpAffine(
                f.patch, (to_unit * CROP_SIDE).astype(np.float32), (CROP_SIDE, CROP_SIDE),
                flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
            )
            for f in (reference, target)
        ]  # fmt: skip
        if self.augment and rng.rand() < 0.5:
            crops = [w[:, ::-1] for w in crops]
            points = [np.c_[1 - p[:, 0], p[:, 1]][self.mirror].astype(np.float32) for p in points]
            yaw_pitch = [y * np.array([-1, 1], np.float32) for y in yaw_pitch]
        colour = _colour(rng) if self.augment else (1.0, np.ones(3, np.float32))
        images = [_image(w, *colour) for w in crops]
        placements = [
            np.r_[yaw_pitch[i], head_shift(points[0], points[i])].astype(np.float32) for i in (1, 2)
        ]
        return (
            images[0],
            points[0],
            points[1],
            placements[0],
            images[1],
            points[2],
            placements[1],
        )


def _jitter(rng: np.random.RandomState) -> NDArray[np.float32]:
    scale, angle = np.exp(rng.uniform(-0.12, 0.12)), rng.uniform(-0.12, 0.12)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = 0.5 - turn @ np.array([0.5, 0.5]) + rng.uniform(-0.05, 0.05, 2)
    return np.c_[turn, shift].astype(np.float32)


def _colour(rng: np.random.RandomState) -> tuple[float, NDArray[np.float32]]:
    gain = rng.uniform(0.85, 1.15, 3) * rng.uniform(0.75, 1.1)
    return float(rng.uniform(0.75, 1.3)), gain.astype(np.float32)


def _image(crop: NDArray[Any], gamma: float, gain: NDArray[np.float32]) -> NDArray[np.float32]:
    x = (crop / np.float32(255)) ** np.float32(gamma) * gain
    return np.ascontiguousarray((np.clip(x, 0, 1) * 2 - 1).transpose(2, 0, 1), np.float32)
