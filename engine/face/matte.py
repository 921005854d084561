"""Which pixels of a portrait are the person: a small public net, its outline drawn to that of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.backends import BATCH, Graph, GraphSpec, TensorSpec
from engine.face.landmarks import Affine, apply, invert
from engine.face.topology import OVAL
from engine.types import RgbImage

F32 = NDArray[np.float32]

MATTE_SIDE = 256  # pixels that the net's picture is squeezed into
MATTE = GraphSpec(
    "matte",
    (TensorSpec("square", (BATCH, MATTE_SIDE, MATTE_SIDE, 3), "uint8"),),
    (TensorSpec("alpha", (BATCH, 1, MATTE_SIDE, MATTE_SIDE)),),
    precision="f32",
)
REACH = 3.2  # of what the net is shown, from the middle of the face to each side, crop units
FINE = 256  # pixels of the longer side at which the outline is drawn to that of the picture
RADIUS = 0.014  # of that side: how far
SMOOTH = 1e-3  # differences of colour, squared, below which pixels count as alike
FAINT = 0.08  # what is less of a pixel than this is nothing, and what is more than 1 less it is all
FACE_SEEN = 0.9  # of the face that must be the person for the net to be believed


class Matting:
    """Tells people from what is behind them."""

    def __init__(self, net: Graph) -> None:
        self._net = net

    def __call__(self, rgb: RgbImage, landmarks: F32, to_crop: Affine) -> F32 | None:
        """How much of each pixel of a portrait (H, W, 3) is the person: (H, W) in [0, 1].

        Args:
            landmarks: (478, 2) in pixels.
            to_crop: from pixels to crop units.

        Returns:
            None where the net does not see that the face is somebody, as on some paintings.
        """
        rows, columns = _shown(rgb.shape[:2], to_crop)
        shown = Image.fromarray(rgb[rows, columns])
        square = shown.resize((MATTE_SIDE, MATTE_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
        coarse = np.asarray(self._net(square=np.asarray(square)[None])["alpha"])[0, 0]
        fine = _drawn_to(np.asarray(coarse, np.float32), np.asarray(shown))
        alpha = np.zeros(rgb.shape[:2], np.float32)
        alpha[rows, columns] = fine
        _extend(alpha, rows, columns)
        face = _face(landmarks, (rgb.shape[0], rgb.shape[1]))
        seen = float((alpha * face).sum() / max(face.sum(), 1))
        return np.maximum(alpha, face) if seen >= FACE_SEEN else None


def _shown(size: tuple[int, ...], to_crop: Affine) -> tuple[slice, slice]:
    """Rows and columns of a picture of `size` that the net is shown."""
    back = invert(to_crop)
    centre = apply(back, np.array([0.5, 0.2], np.float32))
    reach = REACH * float(np.hypot(back[0, 0], back[1, 0]))
    (left, right), (top, bottom) = (
        (max(0, int(middle - reach)), min(length, int(middle + reach) + 1))
        for middle, length in zip(centre, size[::-1], strict=True)
    )
    return slice(top, bottom), slice(left, right)


def _face(landmarks: F32, size: tuple[int, int]) -> F32:
    """The pixels (H, W) of a face, 1 or 0."""
    canvas = Image.new("L", (size[1], size[0]))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in landmarks[list(OVAL)]], fill=1)
    return np.asarray(canvas, np.float32)


def _extend(alpha: F32, rows: slice, columns: slice) -> None:
    """Beyond what the net was shown a pixel is as the nearest one that was."""
    alpha[: rows.start] = alpha[rows.start]
    alpha[rows.stop :] = alpha[rows.stop - 1]
    alpha[:, : columns.start] = alpha[:, columns.start, None]
    alpha[:, columns.stop :] = alpha[:, columns.stop - 1, None]


def _drawn_to(coarse: F32, picture: RgbImage) -> F32:
    """The coarse alpha (h, w) as a linear function of colour around each pixel of `picture`: (H, W).

    He, Sun: Fast Guided Filter, 2015.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, FINE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    guide = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX), np.float32)
    guide = guide / np.float32(255)
    alpha = _resized(coarse, size)
    radius = max(1, round(RADIUS * max(size)))
    mean, mean_alpha = mean_around(guide, radius), mean_around(alpha[..., None], radius)
    spread = mean_around(guide[..., :, None] * guide[..., None, :], radius)
    spread = spread - mean[..., :, None] * mean[..., None, :] + SMOOTH * np.eye(3, dtype=np.float32)
    shared = mean_around(guide * alpha[..., None], radius) - mean * mean_alpha
    slope = np.linalg.solve(spread, shared[..., None])[..., 0]
    offset = mean_alpha - (slope * mean).sum(-1, keepdims=True)
    line = mean_around(np.concatenate([slope, offset], -1).astype(np.float32), radius)
    full = np.stack([_resized(line[..., i], (width, height)) for i in range(4)], -1)
    drawn = (full[..., :3] * (picture / np.float32(255))).sum(-1) + full[..., 3]
    return np.asarray(np.clip((drawn - FAINT) / (1 - 2 * FAINT), 0, 1), np.float32)


def _resized(values: F32, size: tuple[int, int]) -> F32:
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR), np.float32)


def mean_around(values: NDArray[Any], radius: int) -> F32:
    """Mean of (H, W, ...) over squares of `radius` pixels around each."""
    for axis in (0, 1):
        length = values.shape[axis]
        sums = np.concatenate(
            [np.zeros_like(values.take([0], axis), np.float64), values.cumsum(axis, np.float64)],
            axis,
        )
        low = np.maximum(np.arange(length) - radius, 0)
        high = np.minimum(np.arange(length) + radius + 1, length)
        count = (high - low).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        values = ((sums.take(high, axis) - sums.take(low, axis)) / count).astype(np.float32)
    return np.asarray(values, np.float32)
