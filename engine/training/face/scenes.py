"""Scenes for the face detector: images of no face, with up to four labelled faces pasted in."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.face.detector import DETECTOR_CELLS, DETECTOR_SIDE, face_box
from engine.training.face.dataset import F32, U8, FaceSet, Rng, spoil

SMALLEST = 0.075  # face side over image side
COUNTS = (0.25, 0.5, 0.13, 0.07, 0.05)  # how often 0, 1, 2, 3, 4 faces
CELL = DETECTOR_SIDE // DETECTOR_CELLS


@dataclass(frozen=True, slots=True)
class Scenes:
    """A batch."""

    images: U8  # (N, 160, 160, 3)
    heat: F32  # (N, 20, 20) 1 in the cell of a middle, falling to 0 around it
    boxes: F32  # (N, 3, 20, 20) offset x, y in cells and log side, where `near`
    near: F32  # (N, 20, 20) 1 where `boxes` is meant
    squares: list[list[tuple[float, float, float]]]  # x, y, side in pixels


class SceneMaker:
    """Draws scenes from labelled faces and images without faces."""

    def __init__(self, faces: FaceSet, backgrounds: list[U8]) -> None:
        self._faces = faces
        self._backgrounds = backgrounds

    def batch(self, rng: Rng, size: int) -> Scenes:
        """Draw `size` scenes."""
        rows = [self._one(rng) for _ in range(size)]
        targets = [cell_targets(squares) for _, squares in rows]
        heat, boxes, near = (np.stack(part) for part in zip(*targets, strict=True))
        return Scenes(
            np.stack([image for image, _ in rows]), heat, boxes, near, [s for _, s in rows]
        )

    def _one(self, rng: Rng) -> tuple[U8, list[tuple[float, float, float]]]:
        canvas = self._background(rng)
        for _ in range(int(rng.integers(0, 3))):
            _draw_decoy(rng, canvas)
        if rng.random() < 0.3:
            self._scramble(rng, canvas)
        squares: list[tuple[float, float, float]] = []
        count = int(rng.choice(len(COUNTS), p=COUNTS))
        for _ in range(count):
            largest = 0.95 if count == 1 else 0.5
            side = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(largest)))) * DETECTOR_SIDE
            x, y = (float(v) for v in rng.uniform(side * 0.42, DETECTOR_SIDE - side * 0.42, 2))
            if all(max(abs(x - a), abs(y - b)) > 0.62 * (side + c) for a, b, c in squares):
                squares.append(self._paste(rng, canvas, x, y, side))
        image = spoil(rng, canvas)
        _letterbox(rng, image, squares)
        return image, squares

    def _background(self, rng: Rng) -> U8:
        if rng.random() < 0.7:
            source = self._backgrounds[int(rng.integers(len(self._backgrounds)))]
            side = int(min(source.shape[:2]) * rng.uniform(0.25, 1.0))
            y = int(rng.integers(source.shape[0] - side + 1))
            x = int(rng.integers(source.shape[1] - side + 1))
            part = source[y : y + side, x : x + side][:, :: int(rng.choice([-1, 1]))]
            canvas = cv2.resize(part, (DETECTOR_SIDE, DETECTOR_SIDE), interpolation=cv2.INTER_AREA)
        else:  # clouds: noise at a few scales, any colours
            grids = [rng.normal(0, 60 / n, (2 * n, 2 * n, 3)) * n**0.5 for n in (1, 2, 4, 16)]
            layers = [cv2.resize(g, (DETECTOR_SIDE, DETECTOR_SIDE)) for g in grids]
            canvas = np.clip(sum(layers) + rng.uniform(0, 255, 3), 0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(1, 6))
        return np.ascontiguousarray(canvas)

    def _paste(
        self, rng: Rng, canvas: U8, x: float, y: float, side: float
    ) -> tuple[float, float, float]:
        """Put a face with its middle at (x, y); returns the square of its landmarks."""
        index = int(rng.integers(len(self._faces)))
        rgb, points = self._faces.images[index], self._faces.landmarks[index]
        if rng.random() < 0.5:
            rgb, points = rgb[:, ::-1], points * [-1, 1] + [1, 0]
        size = len(rgb)
        roll = rng.normal(0, 0.15)
        left, top, right, bottom = face_box(points * size)
        scale = side / max(right - left, bottom - top)
        c, s = np.cos(roll) * scale, np.sin(roll) * scale
        middle = np.array([left + right, top + bottom]) / 2
        matrix = np.array([[c, -s], [s, c]])
        matrix = np.c_[matrix, [x, y] - matrix @ middle]
        shown = _shrink(rgb, scale)
        if rng.random() < 0.4:
            shown = spoil(rng, shown)
        part = len(shown) / size
        warp = matrix @ np.diag([1 / part, 1 / part, 1])
        extent = (DETECTOR_SIDE, DETECTOR_SIDE)
        mask = cv2.warpAffine(_mask(rng, len(shown)), warp, extent)[..., None]
        layer = cv2.warpAffine(np.ascontiguousarray(shown), warp, extent)
        canvas[:] = (canvas * (1 - mask) + layer * mask).astype(np.uint8)
        left, top, right, bottom = face_box(points * size @ matrix[:, :2].T + matrix[:, 2])
        return (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top)

    def _scramble(self, rng: Rng, canvas: U8) -> None:
        """Put a face whose parts are shuffled: skin and hair, but no face."""
        rgb = self._faces.images[int(rng.integers(len(self._faces)))]
        parts = int(rng.choice([3, 4, 6]))
        step = int(rng.integers(6, DETECTOR_SIDE // parts // 2))
        small = cv2.resize(rgb, (parts * step,) * 2, interpolation=cv2.INTER_AREA)
        tiles = small.reshape(parts, step, parts, step, 3).transpose(0, 2, 1, 3, 4)
        tiles = tiles.reshape(-1, step, step, 3)[rng.permutation(parts * parts)]
        mixed = tiles.reshape(parts, parts, step, step, 3).transpose(0, 2, 1, 3, 4)
        y, x = (int(v) for v in rng.integers(0, DETECTOR_SIDE - parts * step + 1, 2))
        canvas[y : y + parts * step, x : x + parts * step] = mixed.reshape(small.shape)


def cell_targets(squares: list[tuple[float, float, float]]) -> tuple[F32, F32, F32]:
    """Targets of the face detector for `squares`, x, y of the middle and side in pixels.

    Returns:
        heat (20, 20), boxes (3, 20, 20) and near (20, 20), see `Scenes`.
    """
    heat = np.zeros((DETECTOR_CELLS, DETECTOR_CELLS), np.float32)
    boxes = np.zeros((3, DETECTOR_CELLS, DETECTOR_CELLS), np.float32)
    near = np.zeros((DETECTOR_CELLS, DETECTOR_CELLS), np.float32)
    rows, columns = np.mgrid[:DETECTOR_CELLS, :DETECTOR_CELLS].astype(np.float32)
    for x, y, side in squares:
        dx, dy = x / CELL - columns - 0.5, y / CELL - rows - 0.5
        spread = max(0.5, 0.12 * side / CELL)
        heat = np.maximum(heat, np.exp(-(dx**2 + dy**2) / (2 * spread**2)) * 0.99)
        row = min(max(int(y // CELL), 0), DETECTOR_CELLS - 1)
        column = min(max(int(x // CELL), 0), DETECTOR_CELLS - 1)
        heat[row, column] = 1.0
        close = np.maximum(abs(dx), abs(dy)) <= max(0.6, 0.15 * side / CELL)
        close[row, column] = True
        near[close] = 1.0
        boxes[:, close] = np.stack([dx, dy, np.full_like(dx, np.log(side / DETECTOR_SIDE))])[
            :, close
        ]
    return heat.astype(np.float32), boxes, near


def _shrink(rgb: U8, scale: float) -> U8:
    """Average `rgb` down so that drawing it at `scale` skips no pixels."""
    part = min(1.0, max(scale * 1.2, 0.05))
    return np.asarray(
        cv2.resize(rgb, None, fx=part, fy=part, interpolation=cv2.INTER_AREA), np.uint8
    )


def _mask(rng: Rng, size: int) -> NDArray[np.float32]:
    """What of a face image is shown: all of it, a part with soft edges, or only the head."""
    mask = np.zeros((size, size), np.float32)
    kind = rng.random()
    if kind < 0.35:
        margin = int(size * rng.uniform(0, 0.2))
        mask[margin : size - margin, margin : size - margin] = 1
        return mask
    axes = (int(size * rng.uniform(0.27, 0.5)), int(size * rng.uniform(0.32, 0.55)))
    cv2.ellipse(mask, (size // 2, size // 2), axes, 0, 0, 360, 1, -1, cv2.LINE_AA)
    if kind < 0.75:
        return cv2.GaussianBlur(mask, (0, 0), max(size * 0.03, 0.5)).astype(np.float32)
    return mask


def _letterbox(rng: Rng, image: U8, squares: list[tuple[float, float, float]]) -> None:
    """Blacken two edges, as far as no face is there, as for an image that is not square."""
    if rng.random() < 0.5:
        return
    axis = int(rng.integers(2))
    room = [min(s[axis] - s[2] / 2, DETECTOR_SIDE - s[axis] - s[2] / 2) for s in squares]
    bar = int(max(0, min([*room, DETECTOR_SIDE * 0.25])) * rng.uniform(0.3, 1))
    view = image if axis == 1 else image.transpose(1, 0, 2)
    view[:bar] = 0
    view[DETECTOR_SIDE - bar :] = 0


def _draw_decoy(rng: Rng, canvas: U8) -> None:
    """Draw something that is no face: a skin-coloured blob, a smiley, bars, letters."""
    x, y = (int(v) for v in rng.integers(0, DETECTOR_SIDE, 2))
    radius = int(rng.uniform(5, 45))
    skin = np.array([224, 172, 130]) * rng.uniform(0.3, 1.1)
    colour = tuple(int(v) for v in (skin if rng.random() < 0.5 else rng.uniform(0, 255, 3)))
    dark = tuple(int(v) for v in rng.uniform(0, 80, 3))
    kind = rng.integers(4)
    if kind == 0:
        axes = (radius, int(radius * rng.uniform(0.4, 1.6)))
        cv2.ellipse(canvas, (x, y), axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_AA)
        for side in (-1, 1):
            eye = (x + side * radius // 3, y - radius // 4)
            cv2.circle(canvas, eye, max(1, radius // 8), dark, -1, cv2.LINE_AA)
        mouth = (radius // 2, radius // 3)
        cv2.ellipse(canvas, (x, y + radius // 6), mouth, 0, 20, 160, dark, 1, cv2.LINE_AA)
    elif kind == 2:
        corner = (x + int(rng.integers(3, 60)), y + int(rng.integers(3, 60)))
        cv2.rectangle(canvas, (x, y), corner, colour, int(rng.choice([-1, 1, 3])))
    else:
        text = "".join(rng.choice(list("ABCEHKMOQRSWX0369&@ "), 8))
        cv2.putText(canvas, text, (x - 40, y), 0, rng.uniform(0.3, 1.2), colour, 1, cv2.LINE_AA)
