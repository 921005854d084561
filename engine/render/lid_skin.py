"""What a closed lid looks like, made once a portrait from the skin and the lashes around its eye.

An eye is read in columns from corner to corner. In each, the skin above the lashes and the skin under
the eye are looked for; a lid runs from the one colour to the other, so it begins where the portrait's
skin ends and has no seam. Its grain is that of the skin below, its lashes are those of the open eye.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from engine.render.lab import LUMA

F32 = NDArray[np.float32]
# In widths of the eye:
ABOVE, UNDER = (0.05, 0.24), (0.10, 0.24)  # where the skin above and under it is looked for
TO_BROW = 0.6  # and at most so far of the way to the brow
REACH = 0.34  # and how far above the eye skin moves as it closes
FOLD = 0.07  # how far it comes down
EVEN = 0.08  # over which what is found is evened out along the eye
GRAIN = 0.06  # details larger than this belong to the face, not to its skin
GRAIN_FROM = 0.12  # how far under the eye its grain is taken from
LASHES = (-0.14, 0.12)  # from above the edge of a lid to below: what its lashes darken
LINE = 0.018  # half of the thickness of the line that they make
TO_BOTTOM = 0.7  # how far the colour of a lid goes from that above it to that under it
BINS = 96  # in which that is kept
SIMILAR = 6.0  # grey levels: skin this much darker than the lightest is as good, and nearer
BULGE, CREASE = (
    0.03,
    0.07,
)  # a lid is lighter where it bulges, darker where it comes out of its fold
STRONG = (0.32, 0.6)  # how much a line of lashes darkens: the least, the most


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
        return np.asarray((np.arange(n) + 0.5) / n, np.float32)

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
    other: F32  # (3,) how much folds and shadows make the skin around the eye differ from these
    rise: F32  # (n,) pixels from the upper lid's edge up to `top`


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pixels of an eye's box lie, all (h, w); lengths in pixels."""

    x: F32
    y: F32
    across: F32  # the eye's width is [0, 1]
    depth: F32  # below the open upper lid's edge
    opening: F32  # from there to the lower lid's edge
    rise: F32  # from there up to the skin above the lashes
    room: F32  # and up to the last skin that moves
    fall: F32  # how far the skin above comes down as the eye closes


def read_skin(picture: F32, eye: Columns) -> Skin:
    """The skin above and under an eye of a picture (3, H, W) in [0, 255]."""
    room = np.minimum(ABOVE[1] * eye.width, TO_BROW * (eye.upper - eye.brow))
    room = np.maximum(room, (ABOVE[0] + 0.02) * eye.width)
    steps = np.linspace(0, 1, 13, dtype=np.float32)
    up = ABOVE[0] * eye.width + steps * (room - ABOVE[0] * eye.width)[:, None]
    above = eye.read(picture, eye.upper[:, None] - up)
    rise, top = _lightest(above, up)
    under = np.linspace(*UNDER, 13, dtype=np.float32) * eye.width + 0 * up
    below = eye.read(picture, eye.lower[:, None] + under)
    _, bottom = _lightest(below, under)
    around = np.median(np.concatenate([above, below], 2), (1, 2))
    lid = np.median(top + TO_BOTTOM / 2 * (bottom - top), 1)
    return Skin(top, bottom, np.asarray(around - lid, np.float32), rise)


def _lightest(found: F32, distance: F32) -> tuple[F32, F32]:
    """Distance (n,) and colour (3, n) of skin: not lashes, a fold, or the frame of glasses.

    Of what was found (3, n, m) at `distance` (n, m) of each column: the nearest that is about as light as any.
    """
    found = even(found)
    luma = np.tensordot(LUMA, found, 1)
    light = luma >= luma.max(1, keepdims=True) - SIMILAR
    first = light.argmax(1)[:, None]
    picked = even(np.take_along_axis(distance, first, 1))[:, 0]
    colour = even(np.take_along_axis(found, first[None], 2))[..., 0]
    return picked, colour


def even(values: F32) -> F32:
    """Values (..., n, m) of an eye's columns, evened out along it."""
    reach = max(1, round(EVEN * values.shape[-2]))
    kernel = np.hanning(2 * reach + 3)[1:-1].astype(np.float32)
    pad = [(0, 0)] * values.ndim
    pad[-2] = (reach, reach)
    padded = np.pad(values, pad, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=-2)
    return np.asarray(windows @ (kernel / kernel.sum()), np.float32)


def place_pixels(eye: Columns, skin: Skin, x: F32, y: F32) -> Place:
    """Where the pixels x, y (h, w) of an eye's box lie."""
    offset = np.stack([x - eye.start[0], y - eye.start[1]], -1)
    across = np.asarray(offset @ eye.along / eye.width, np.float32)
    room = np.minimum(REACH * eye.width, 0.7 * (eye.upper - eye.brow))
    upper, lower, rise, room = (
        np.asarray(np.interp(across, eye.at, line), np.float32)
        for line in (eye.upper, eye.lower, skin.rise, np.maximum(room, 1.2 * skin.rise))
    )
    from_corner = np.minimum(across, 1 - across)
    depth = np.asarray(offset @ eye.down - upper, np.float32)
    fall = np.minimum(FOLD * eye.width, 0.4 * room) * smooth(from_corner / 0.2)
    return Place(x, y, across, depth, np.maximum(lower - upper, 1e-3), rise, room, fall)


def lid_colours(rgb: NDArray[np.uint8], skin: Skin, eye: Columns, at: Place) -> F32:
    """A closed lid (3, h, w) in [0, 255] of a portrait (H, W, 3), and the skin that it draws down."""
    down = smooth((at.depth + at.rise) / (at.opening + at.rise))

    def over(values: F32) -> F32:
        return np.asarray(np.interp(at.across, eye.at, values), np.float32)

    lid = np.stack(
        [
            over(top) + TO_BOTTOM * down * over(bottom - top) + smooth(2 * down) * other
            for top, bottom, other in zip(skin.top, skin.bottom, skin.other, strict=True)
        ]
    )
    below = at.opening + GRAIN_FROM * eye.width
    grain = GRAIN * eye.width
    lid += _grain(rgb, at.x + below * eye.down[0], at.y + below * eye.down[1], grain)
    fold = np.exp(-np.square((at.depth - at.fall) / (0.06 * eye.width)))
    bulge = np.sin(np.pi * np.clip((at.depth - at.fall) / (at.opening - at.fall), 0, 1))
    lid *= 1 + BULGE * bulge - CREASE * fold
    up = at.fall * smooth(1 + at.depth / at.room)
    drawn = sample(
        rgb.transpose(2, 0, 1).astype(np.float32),
        at.x - up * eye.down[0],
        at.y - up * eye.down[1],
    )
    lid = drawn + smooth((at.depth + 1.4 * at.rise - at.fall) / (0.7 * at.rise)) * (lid - drawn)
    return np.asarray(np.clip(lid, 0, 255), np.float32)


def _grain(rgb: NDArray[np.uint8], x: F32, y: F32, size: float) -> F32:
    """What is smaller than `size` in a portrait (H, W, 3) at pixels x, y (h, w): (3, h, w).

    It is around zero, and without what stands out.
    """
    margin = int(2 * size) + 2
    low = [max(0, int(at.min()) - margin) for at in (x, y)]
    left, top = (
        min(at, side - 2) for at, side in zip(low, (rgb.shape[1], rgb.shape[0]), strict=True)
    )
    part = rgb[top : int(y.max()) + margin, left : int(x.max()) + margin]
    blurred = Image.fromarray(part).filter(ImageFilter.GaussianBlur(size))
    grain = (part.astype(np.float32) - np.asarray(blurred, np.float32)).transpose(2, 0, 1)
    usual = 2.5 * np.median(np.abs(grain), (1, 2), keepdims=True)
    return sample(np.clip(grain, -usual, usual), x - left, y - top)


def lash_table(picture: F32, skin: Skin, eye: Columns) -> F32:
    """How dark lashes make what they lie on: (n, BINS) factors in [0, 1] over `LASHES`.

    The lashes of an open eye of the picture (3, H, W) stand above its edge; of a closed one they hang down.
    """
    far = np.linspace(0, 0.1, 32, dtype=np.float32)
    read = eye.read(picture, eye.upper[:, None] - far * eye.width)
    light = np.tensordot(LUMA, skin.top, 1)[:, None]
    own = np.minimum(np.tensordot(LUMA, read, 1) / np.maximum(light, 1), 1)  # (n, 32)
    own = even(1 - (1 - own) * smooth(1.7 - far / 0.045))
    middle = own[len(own) // 5 : -len(own) // 5]
    strong = float(np.clip(1 - np.median(middle[:, :16].min(1)), *STRONG))
    at = np.linspace(*LASHES, BINS, dtype=np.float32)
    hang = np.where(at > 0, at, -2.5 * at)
    table = np.stack([np.interp(hang, far, row, right=1) for row in own])
    line = strong * np.exp(-np.square((at - 0.5 * LINE) / LINE))
    roundness = 0.06 * smooth(1 + at / -LASHES[0]) * (at < 0)
    ends = smooth(np.minimum(eye.at, 1 - eye.at) / 0.12)[:, None]
    dark = np.maximum(1 - table, line) + roundness
    factors = np.asarray(1 - np.minimum(dark, strong) * ends, np.float32)
    factors[[0, -1]] = 1  # what is beyond the corners is read there
    return factors


def sample(picture: F32, x: F32, y: F32) -> F32:
    """Values (3, ...) of `picture` (3, H, W) at pixel positions x, y (...), bilinear."""
    height, width = picture.shape[1:]
    x, y = np.clip(x - 0.5, 0, width - 1.001), np.clip(y - 0.5, 0, height - 1.001)
    i, j = x.astype(int), y.astype(int)
    fx, fy = (x - i).astype(np.float32), (y - j).astype(np.float32)
    top = picture[:, j, i] * (1 - fx) + picture[:, j, i + 1] * fx
    below = picture[:, j + 1, i] * (1 - fx) + picture[:, j + 1, i + 1] * fx
    return np.asarray(top * (1 - fy) + below * fy, np.float32)


def smooth(value: NDArray[Any]) -> F32:
    """0 below 0, 1 above 1, and no corner between: values (..., N) and as many results."""
    inside = np.clip(value, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), np.float32)
