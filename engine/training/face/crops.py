"""Training crops of the landmark net: as enrolment makes them, with as large errors and larger."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.face.candidates import FaceCrop
from engine.face.detector import CROP, CROP_SCALE, aligned_crop, face_box
from engine.training.face.dataset import F32, U8, FaceSet, Rng, spoil

MIRROR = np.array([-1, 1], np.float32)
NEGATIVE_SHARE = 0.10  # of the crops hold no face, or not where it should be


@dataclass(frozen=True, slots=True)
class Crops:
    """A batch."""

    images: U8  # (N, 192, 192, 3)
    landmarks: F32  # (N, 478, 2) in crop units
    scores: F32  # (N, 52)
    angles: F32  # (N, 2)
    present: F32  # (N,) 1 where the crop shows a face; labels elsewhere mean nothing


class CropMaker:
    """Draws batches of crops from labelled faces.

    Args:
        faces: the faces, cut by `engine.training.face.dataset.gather`.
        backgrounds: images (H, W, 3) that show no face.
        mirror_points, mirror_scores: which point (478,) and which score (52,) each becomes when mirrored.
    """

    def __init__(
        self,
        faces: FaceSet,
        backgrounds: list[U8],
        mirror_points: NDArray[np.intp],
        mirror_scores: NDArray[np.intp],
    ) -> None:
        self._faces = faces
        self._backgrounds = backgrounds
        self.mirror_points, self._mirror_scores = mirror_points, mirror_scores

    def batch(self, rng: Rng, size: int) -> Crops:
        """Draw `size` crops."""
        rows = [self._one(rng, int(rng.integers(len(self._faces)))) for _ in range(size)]
        images, landmarks, scores, angles, present = zip(*rows, strict=True)
        return Crops(
            np.stack(images),
            np.stack(landmarks),
            np.stack(scores),
            np.stack(angles),
            np.array(present, np.float32),
        )

    def _one(self, rng: Rng, index: int) -> tuple[U8, F32, F32, F32, float]:
        faces = self._faces
        rgb, landmarks = faces.images[index], faces.landmarks[index]
        scores, angles = faces.scores[index], faces.angles[index]
        if rng.random() < 0.5:
            rgb = rgb[:, ::-1]
            landmarks = landmarks[self.mirror_points] * MIRROR + np.array([1, 0], np.float32)
            scores, angles = scores[self._mirror_scores], angles * MIRROR
        if rng.random() < NEGATIVE_SHARE:
            return self._negative(rng, rgb, landmarks), landmarks, scores, angles, 0.0
        placed = jitter(rng, landmarks)
        matrix = _to_crop(placed, len(rgb))
        if rng.random() < 0.2:
            matrix = _tilt(rng) @ matrix
        crop = _warp(rgb, matrix)
        landmarks = cv2.perspectiveTransform(landmarks[None] * len(rgb), matrix)[0] / CROP
        if rng.random() < 0.25:
            crop = self._cover(rng, crop, landmarks)
        return spoil(rng, crop), landmarks, scores, angles, 1.0

    def _negative(self, rng: Rng, rgb: U8, landmarks: F32) -> U8:
        """A crop beside a face, of a face far too large, small or upside down, or of anything."""
        kind = rng.integers(5)
        if kind < 2:
            source = self._backgrounds[int(rng.integers(len(self._backgrounds)))]
            side = int(min(source.shape[:2]) * rng.uniform(0.1, 0.9))
            row = int(rng.integers(source.shape[0] - side + 1))
            column = int(rng.integers(source.shape[1] - side + 1))
            part = source[row : row + side, column : column + side]
            crop = cv2.resize(part, (CROP, CROP), interpolation=cv2.INTER_AREA)
            return spoil(rng, crop.astype(np.uint8))
        left, top, right, bottom = face_box(landmarks)
        x, y, size = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)
        roll = rng.uniform(-0.4, 0.4)
        if kind == 2:
            angle = rng.uniform(0, 2 * np.pi)
            reach = rng.uniform(0.65, 0.95) * size
            x, y = x + np.cos(angle) * reach, y + np.sin(angle) * reach
            size *= rng.uniform(0.4, 1.1)
        elif kind == 3:
            size *= rng.uniform(0.2, 0.4) if rng.random() < 0.5 else rng.uniform(3.0, 6.0)
        else:
            roll += np.pi * rng.uniform(0.6, 1.4)
        away = FaceCrop(x, y, size * CROP_SCALE, roll)
        return spoil(rng, _warp(rgb, _to_crop(away, len(rgb))))

    def _cover(self, rng: Rng, crop: U8, landmarks: F32) -> U8:
        """Glasses, or a blob or bar in skin colour, dark or of another image, over the face."""
        crop = crop.copy()
        if rng.random() < 0.4:
            return _glasses(rng, crop, landmarks * CROP)
        mask = np.zeros(crop.shape[:2], np.uint8)
        x, y = (int(v) for v in rng.uniform(0.1, 0.9, 2) * CROP)
        axes = (int(rng.uniform(8, 40)), int(rng.uniform(8, 40)))
        if rng.random() < 0.5:
            cv2.ellipse(mask, (x, y), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        else:
            cv2.rectangle(mask, (x - axes[0], y - axes[1]), (x + axes[0], y + axes[1]), 1, -1)
        kind = rng.integers(3)
        if kind == 0:  # a hand: the colour of the cheek
            at = np.clip(landmarks[50] * CROP, 0, CROP - 1).astype(int)
            cover = np.clip(crop[at[1], at[0]] * rng.uniform(0.8, 1.1), 0, 255)
        elif kind == 1:
            cover = rng.integers(0, 255, 3)
        else:
            source = self._backgrounds[int(rng.integers(len(self._backgrounds)))]
            cover = cv2.resize(source, (CROP, CROP))[mask > 0]
        crop[mask > 0] = cover
        return crop


def jitter(rng: Rng, landmarks: F32) -> FaceCrop:
    """A crop around landmarks (478, 2) as enrolment makes it, in their unit.

    Mostly it is nearly aligned; one in four comes from a rough box.
    """
    if rng.random() < 0.25:
        left, top, right, bottom = face_box(landmarks)
        side = max(right - left, bottom - top)
        base, spread = FaceCrop((left + right) / 2, (top + bottom) / 2, side * CROP_SCALE), 0.09
        stretch, turn = rng.uniform(0.8, 1.3), rng.uniform(-0.5, 0.5)
    else:
        base, spread = aligned_crop(landmarks), 0.045
        stretch, turn = np.exp(rng.normal(0, 0.09)), rng.normal(0, 0.07)
    dx, dy = rng.normal(0, spread, 2) * base.side / CROP_SCALE
    return FaceCrop(base.x + dx, base.y + dy, base.side * stretch, base.roll + turn)


def _to_crop(crop: FaceCrop, size: int) -> NDArray[np.float64]:
    """(3, 3): pixels of a stored image of `size` -> pixels of the crop."""
    scaled = FaceCrop(crop.x * size, crop.y * size, crop.side * size, crop.roll)
    matrix = np.vstack([scaled.matrix(), [0, 0, 1]]) @ np.diag([1 / CROP, 1 / CROP, 1])
    return np.asarray(np.linalg.inv(matrix))


def _tilt(rng: Rng) -> NDArray[np.float64]:
    """(3, 3): a small change of perspective within the crop."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * CROP
    moved = corners + rng.uniform(-0.06, 0.06, (4, 2)).astype(np.float32) * CROP
    return np.asarray(cv2.getPerspectiveTransform(corners, moved))


def _warp(rgb: U8, matrix: NDArray[np.float64]) -> U8:
    """Resample to a crop; `matrix` speaks of continuous coordinates, OpenCV of pixel centres."""
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centred = np.linalg.inv(shift) @ matrix @ shift
    return np.asarray(cv2.warpPerspective(rgb, centred, (CROP, CROP)), np.uint8)


def _glasses(rng: Rng, crop: U8, points: F32) -> U8:
    """Draw glasses (clear, tinted or dark) on the eyes; `points` (478, 2) in crop pixels."""
    colour = tuple(int(v) for v in rng.integers(0, 120, 3))
    eyes = [(points[a] + points[b]) / 2 for a, b in ((33, 133), (362, 263))]
    width = float(np.linalg.norm(eyes[1] - eyes[0]))
    radius = (int(width * rng.uniform(0.3, 0.45)), int(width * rng.uniform(0.22, 0.38)))
    angle = float(np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1])))
    line = int(rng.integers(1, 4))
    tint = rng.choice([0.0, 0.0, 0.4, 0.95])
    lenses = crop.copy()
    centres = [(int(e[0]), int(e[1] + 0.05 * width)) for e in eyes]
    for centre in centres:
        cv2.ellipse(lenses, centre, radius, angle, 0, 360, colour, -1)
    crop = cv2.addWeighted(crop, 1 - tint, lenses, tint, 0).astype(np.uint8)
    for centre in centres:
        cv2.ellipse(crop, centre, radius, angle, 0, 360, colour, line, cv2.LINE_AA)
    bridge = [
        (int(c[0] + s * radius[0] * 0.95), c[1]) for c, s in zip(centres, (1, -1), strict=True)
    ]
    cv2.line(crop, bridge[0], bridge[1], colour, line, cv2.LINE_AA)
    return crop
