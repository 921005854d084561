"""What a closed lid looks like, made once a portrait from the skin and the lashes around its eye.

An eye is read in columns from corner to corner. In each, the skin above the lashes and the skin under
the eye are looked for; a lid runs from the one colour to the other, so it begins where the portrait's
skin ends and has no seam. Its grain is that of the skin below, its lashes are those of the open eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

F32 = NDArray[np.float32]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# In widths of the eye:
ABOVE, UNDER = (0.05, 0.24), (0.07, 0.22)  # where the skin above and under it is looked for
TO_BROW = 0.6  # and at most so far of the way to the brow
EVEN = 0.08  # over which what is found is evened out along the eye
GRAIN = 0.06  # details larger than this belong to the face, not to its skin
GRAIN_FROM = 0.12  # how far under the eye its grain is taken from
LASHES = (-0.14, 0.12)  # from above the edge of a lid to below: what its lashes darken
LINE = 0.02  # half of the thickness of the line that they make
BINS = 96  # in which that is kept
SIMILAR = 6.0  # grey levels: skin this much darker than the lightest is as good, and nearer
BULGE, CREASE = 0.03, 0.07  # a lid is lighter where it bulges, darker where it comes out of its fold
STRONG = (0.35, 0.75)  # how much a line of lashes darkens: the least, the most


@dataclass(frozen=True, slots=True)
class Columns:
    """An eye's columns from corner to corner. Read-only; lengths in pixels."""

    start: F32  # (2,) the corner where they begin
    along: F32  # (2,) unit vector to the other corner
    down: F32  # (2,) unit vector across the eye
    width: float  # from corner to corner
    upper: F32  # (n,) how far below the line through the corners the upper lid's edge is
    lower: F32  # (n,) the lower lid's
    brow: F32  # (n,) the brow's lower edge

    @property
    def at(self) -> F32:
        """Where the columns are in the eye's width: (n,) in [0, 1]."""
        n = len(self.upper)
        return (np.arange(n, dtype=np.float32) + 0.5) / n

    def read(self, picture: F32, depth: F32) -> F32:
        """Values (3, n, m) of a picture (3, H, W) at `depth` (n, m) of each column."""
        across = (self.at * self.width)[:, None]
        x = self.start[0] + across * self.along[0] + depth * self.down[0]
        y = self.start[1] + across * self.along[1] + depth * self.down[1]
        return sample(picture, x, y)


@dataclass(frozen=True, slots=True)
class Skin:
    """The skin around one eye, by column."""

    top: F32  # (3, n) colour above the lashes
    bottom: F32  # (3, n) colour under the eye
    rise: F32  # (n,) pixels from the upper lid's edge up to `top`


def read_skin(picture: F32, eye: Columns) -> Skin:
    """The skin above and under an eye of a picture (3, H, W) in [0, 255]."""
    room = np.minimum(ABOVE[1] * eye.width, TO_BROW * (eye.upper - eye.brow))
    room = np.maximum(room, (ABOVE[0] + 0.02) * eye.width)
    steps = np.linspace(0, 1, 13, dtype=np.float32)
    up = ABOVE[0] * eye.width + steps * (room - ABOVE[0] * eye.width)[:, None]
    rise, top = _lightest(eye, eye.read(picture, eye.upper[:, None] - up), up)
    under = np.linspace(*UNDER, 13, dtype=np.float32) * eye.width + 0 * up
    _, bottom = _lightest(eye, eye.read(picture, eye.lower[:, None] + under), under)
    return Skin(top, bottom, rise)


def _lightest(eye: Columns, found: F32, distance: F32) -> tuple[F32, F32]:
    """Distance (n,) and colour (3, n) of skin: not lashes, a fold, or the frame of glasses.

    Of what was found (3, n, m) at `distance` (n, m) of each column: the nearest that is about as light as any.
    """
    found = even(eye, found)
    luma = np.tensordot(LUMA, found, 1)
    light = luma >= luma.max(1, keepdims=True) - SIMILAR
    first = light.argmax(1)[:, None]
    picked = even(eye, np.take_along_axis(distance, first, 1))[:, 0]
    colour = even(eye, np.take_along_axis(found, first[None], 2))[..., 0]
    return picked, colour


def even(eye: Columns, values: F32) -> F32:
    """Values (..., n, m) evened out along the eye."""
    reach = max(1, round(EVEN * len(eye.upper)))
    kernel = np.hanning(2 * reach + 3)[1:-1].astype(np.float32)
    pad = [(0, 0)] * values.ndim
    pad[-2] = (reach, reach)
    padded = np.pad(values, pad, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=-2)
    return np.asarray(windows @ (kernel / kernel.sum()), np.float32)


def lid_colours(rgb: NDArray[np.uint8], skin: Skin, eye: Columns, x: F32, y: F32) -> F32:
    """A lid (3, h, w) in [0, 255] over the pixels x, y (h, w) of a portrait (H, W, 3)."""
    place = np.stack([x - eye.start[0], y - eye.start[1]], -1)
    across, depth = place @ eye.along / eye.width, place @ eye.down

    def over(values: F32) -> F32:
        return np.asarray(np.interp(across, eye.at, values), np.float32)

    upper, opening = over(eye.upper), over(np.maximum(eye.lower - eye.upper, 1e-3))
    rise = over(skin.rise)
    down = smooth((depth - upper + rise) / (opening + rise))
    lid = np.stack(
        [over(top) + down * over(bottom - top) for top, bottom in zip(skin.top, skin.bottom)]
    )
    lid += sample(_grain(rgb, eye), *_shifted(x, y, eye.down, opening + GRAIN_FROM * eye.width))
    from_fold = (depth - upper) / (0.06 * eye.width)
    fold = np.exp(-np.square(from_fold))
    bulge = np.sin(np.pi * np.clip((depth - upper) / opening, 0, 1))
    return np.asarray(np.clip(lid * (1 + BULGE * bulge - CREASE * fold), 0, 255), np.float32)


def _shifted(x: F32, y: F32, way: F32, by: F32) -> tuple[F32, F32]:
    return x + by * way[0], y + by * way[1]


def _grain(rgb: NDArray[np.uint8], eye: Columns) -> F32:
    """What is small in a portrait (H, W, 3), around zero and without what stands out: (3, H, W)."""
    blurred = Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(GRAIN * eye.width))
    grain = (rgb.astype(np.float32) - np.asarray(blurred, np.float32)).transpose(2, 0, 1)
    usual = 2.5 * np.median(np.abs(grain), (1, 2), keepdims=True)
    return np.asarray(np.clip(grain, -usual, usual), np.float32)


def lash_table(picture: F32, skin: Skin, eye: Columns) -> F32:
    """How dark lashes make what they lie on: (n, BINS) factors in [0, 1] over `LASHES`.

    The lashes of an open eye of the picture (3, H, W) stand above its edge; of a closed one they hang down.
    """
    far = np.linspace(0, 0.1, 32, dtype=np.float32)
    read = eye.read(picture, eye.upper[:, None] - far * eye.width)
    light = np.tensordot(LUMA, skin.top, 1)[:, None]
    own = np.minimum(np.tensordot(LUMA, read, 1) / np.maximum(light, 1), 1)  # (n, 32)
    own = 1 - (1 - own) * smooth(2 - far / 0.05)
    middle = own[len(own) // 5 : -len(own) // 5]
    strong = float(np.clip(1 - np.median(middle[:, :16].min(1)), *STRONG))
    at = np.linspace(*LASHES, BINS, dtype=np.float32)
    hang = np.where(at > 0, at, -2.5 * at)
    table = np.stack([np.interp(hang, far, row, right=1) for row in own])
    line = strong * np.exp(-np.square((at - 0.5 * LINE) / LINE))
    roundness = 0.06 * smooth(1 + at / -LASHES[0]) * (at < 0)
    ends = smooth(np.minimum(eye.at, 1 - eye.at) / 0.12)[:, None]
    dark = np.maximum(1 - table, line) + roundness
    return np.asarray(1 - np.clip(dark * ends, 0, 0.9), np.float32)


def sample(picture: F32, x: F32, y: F32) -> F32:
    """Values (3, ...) of `picture` (3, H, W) at pixel positions x, y (...), bilinear."""
    height, width = picture.shape[1:]
    x, y = np.clip(x - 0.5, 0, width - 1.001), np.clip(y - 0.5, 0, height - 1.001)
    i, j = x.astype(int), y.astype(int)
    fx, fy = (x - i).astype(np.float32), (y - j).astype(np.float32)
    top = picture[:, j, i] * (1 - fx) + picture[:, j, i + 1] * fx
    below = picture[:, j + 1, i] * (1 - fx) + picture[:, j + 1, i + 1] * fx
    return np.asarray(top * (1 - fy) + below * fy, np.float32)


def smooth(value: F32) -> F32:
    """0 below 0, 1 above 1, and no corner between; any shape (...)."""
    inside = np.clip(value, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), np.float32)
