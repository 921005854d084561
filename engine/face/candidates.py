"""Where faces may be: squares of an image, the grid of the face detector read, an image cut into parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.types import RgbImage

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """A square of the image, turned by `roll` about its centre."""

    x: float
    y: float
    side: float
    roll: float = 0.0

    def matrix(self) -> NDArray[np.float64]:
        """(2, 3): crop units [0, 1] x [0, 1] -> image pixels."""
        c, s = math.cos(self.roll) * self.side, math.sin(self.roll) * self.side
        return np.array([[c, -s, self.x - (c - s) / 2], [s, c, self.y - (s + c) / 2]])

    def place(self, points: F32) -> F32:
        """Points (N, 2) in crop units -> image pixels."""
        matrix = self.matrix()
        return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)

    def cut(self, image: Image.Image, size: int) -> RgbImage:
        """Resample the crop to (size, size, 3); outside the image is black."""
        matrix = self.matrix()
        shrink = max(1, int(self.side / size * 0.75))
        if shrink > 1:  # average first: bilinear sampling alone would skip pixels
            image = image.reduce(shrink)
        scale = matrix[:, :2] / size / shrink
        coefficients = (*scale[0], matrix[0, 2] / shrink, *scale[1], matrix[1, 2] / shrink)
        return np.asarray(
            image.transform(
                (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
            )
        )


def decode_cells(cells: F32, threshold: float) -> list[tuple[float, FaceCrop]]:
    """Read the face detector's grid (4, 20, 20): score and square of each face in [0, 1] units, best first.

    A cell counts when its score is over `threshold` and the highest of its 3 x 3 neighbourhood;
    of two squares that overlap by more than a third of their union the better stays.
    """
    scores = 1 / (1 + np.exp(-cells[0].astype(np.float64)))
    n = len(scores)
    around = np.pad(scores, 1)
    highest = np.max([around[j : j + n, i : i + n] for j in range(3) for i in range(3)], axis=0)
    found: list[tuple[float, FaceCrop]] = []
    peaks = np.argwhere((scores >= highest) & (scores > threshold))
    for row, column in sorted(peaks.tolist(), key=lambda cell: -scores[cell[0], cell[1]]):
        dx, dy, size = (float(v) for v in cells[1:, row, column])
        crop = FaceCrop((column + 0.5 + dx) / n, (row + 0.5 + dy) / n, math.exp(min(size, 0.7)))
        if all(_overlap(crop, other) < 1 / 3 for _, other in found):
            found.append((float(scores[row, column]), crop))
    return found


def _overlap(a: FaceCrop, b: FaceCrop) -> float:
    """Intersection over union of two upright squares."""
    width = min(a.x + a.side / 2, b.x + b.side / 2) - max(a.x - a.side / 2, b.x - b.side / 2)
    height = min(a.y + a.side / 2, b.y + b.side / 2) - max(a.y - a.side / 2, b.y - b.side / 2)
    common = max(width, 0.0) * max(height, 0.0)
    return common / (a.side**2 + b.side**2 - common)


def tiles(width: int, height: int, parts: int) -> list[tuple[int, int, int, int]]:
    """Squares (left, top, right, bottom) that cover an image and overlap by half.

    Args:
        parts: their side is the longer side of the image over this; 1 gives the whole image.
    """
    side = max(width, height) if parts == 1 else math.ceil(max(width, height) / parts)

    def starts(length: int) -> list[int]:
        steps = math.ceil(max(length - side, 0) / (side / 2))
        return [round(i * (length - side) / steps) for i in range(steps + 1)] if steps else [0]

    return [
        (x, y, min(x + side, width), min(y + side, height))
        for y in starts(height)
        for x in starts(width)
    ]
