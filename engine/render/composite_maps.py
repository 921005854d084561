"""Where the pixels of a portrait find what they need: its crop cut out, and its look-up maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.face.landmarks import Affine, apply, compose, invert
from engine.types import RgbImage

F32 = NDArray[np.float32]

CROP_SIDE = 128  # pixels of the painted crop
FEATHER = 0.1  # how far inside its border the painted crop has faded in, crop units
WINDOW = 1.08  # side of the box it is laid in over its own: room for a head that tilts

# Lines of the flow grid in crop units: dense over the face, sparse over hair and shoulders.
GRID_X = np.concatenate(
    [np.linspace(-1.5, -0.5, 7), np.linspace(-0.36, 1.36, 41), np.linspace(1.5, 2.5, 7)]
).astype(np.float32)
GRID_Y = np.concatenate(
    [np.linspace(-2.4, -1.4, 7), np.linspace(-1.26, 1.26, 57), np.linspace(1.4, 2.0, 5)]
).astype(np.float32)
# Points that stay where they are: the frame of everything the head does not carry.
ANCHORS = np.array(
    [(x, y) for y in (-2.4, 2.0) for x in np.linspace(-1.5, 2.5, 9)]
    + [(x, y) for x in (-1.5, 2.5) for y in np.linspace(-2.0, 1.7, 8)]
    + [(x, 1.75) for x in (-1.0, -0.5, 1.5, 2.0)],
    np.float32,
)


@dataclass(frozen=True, slots=True)
class Region:
    """An upright box of a portrait and where its pixels find what they need."""

    box: tuple[slice, slice]  # rows, columns
    at: dict[str, F32]  # sampling positions (1, ..., 2), named as in the graph's spec


@dataclass(frozen=True, slots=True)
class CompositeMaps:
    """Where one portrait's pixels find their flow and their painted crop. Read-only."""

    rgb: RgbImage  # (H, W, 3) the portrait itself
    portrait: dict[str, F32]  # the pixels as floats and the size of a crop unit
    head: Region  # all that can move
    to_crop: Affine  # from pixels
    window: tuple[int, int]  # height and width of the box that the painted crop is laid in

    def crop(self, head: Affine) -> Region:
        """Where the painted crop lies in a frame whose head lies as `head` (2, 3) says.

        Args:
            head: from places in the portrait to those in the frame, crop units.
        """
        to_patch = compose(invert(head), self.to_crop)
        middle = apply(invert(to_patch), np.array([0.5, 0.5], np.float32))
        height, width = self.window
        top = round(float(np.clip(middle[1] - height / 2, 0, self.rgb.shape[0] - height)))
        left = round(float(np.clip(middle[0] - width / 2, 0, self.rgb.shape[1] - width)))
        to_sampling = 2 * to_patch - np.array([0, 0, 1], np.float32)
        rows = np.arange(top, top + height, dtype=np.float32)[:, None] + 0.5
        columns = np.arange(left, left + width, dtype=np.float32)[:, None] + 0.5
        down = rows * to_sampling[:, 1] + to_sampling[:, 2]
        at = {"down": down[None], "across": (columns * to_sampling[:, 0])[None]}
        return Region((slice(top, top + height), slice(left, left + width)), at)


def _sampling(pixel: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return (2 * pixel / size - 1).astype(np.float32)


def _look_up(unit: F32, x: F32, y: F32) -> F32:
    """Sampling positions (1, h, w, 2) of crop points (h, w, 2) in a field with lines x and y."""
    column = np.interp(unit[..., 0], x, np.arange(len(x)) + 0.5)
    row = np.interp(unit[..., 1], y, np.arange(len(y)) + 0.5)
    return np.stack([_sampling(column, len(x)), _sampling(row, len(y))], -1)[None]


def cut_crop(rgb: RgbImage, to_crop: Affine) -> F32:
    """The crop of a portrait: (1, 3, 128, 128) in [-1, 1]."""
    back = invert(to_crop)  # crop units -> pixels; PIL wants crop pixels -> pixels
    shrink = max(1, int(np.hypot(back[0, 0], back[1, 0]) / CROP_SIDE))
    picture = Image.fromarray(rgb)
    small = picture.reduce(shrink) if shrink > 1 else picture
    matrix = np.c_[back[:, :2] / CROP_SIDE, back[:, 2]] / shrink
    cut = small.transform(
        (CROP_SIDE, CROP_SIDE),
        Image.Transform.AFFINE,
        tuple(matrix.ravel()),
        Image.Resampling.BICUBIC,
    )
    return np.ascontiguousarray(np.asarray(cut, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1)


def make_composite_maps(rgb: RgbImage, to_crop: Affine) -> CompositeMaps:
    """Prepare the look-up maps of a portrait.

    Args:
        rgb: (H, W, 3).
        to_crop: affine from pixels of `rgb` to crop units.
    """
    height, width = rgb.shape[:2]
    back = invert(to_crop)

    def reach(x: F32, y: F32) -> tuple[int, int, int, int]:
        corners = np.array([(a, b) for a in (x[0], x[-1]) for b in (y[0], y[-1])], np.float32)
        there = apply(back, corners)
        left, top = np.clip(np.floor(there.min(0)), 0, (width - 1, height - 1)).astype(int)
        right, bottom = np.clip(np.ceil(there.max(0)), (left + 1, top + 1), (width, height)).astype(
            int
        )
        return left, top, right, bottom

    across, down = WINDOW * np.abs(back[:, :2]).sum(1)
    to_sampling = back[:, :2] * np.array([[2 / width], [2 / height]])
    return CompositeMaps(
        rgb=rgb,
        portrait={
            "portrait": np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32),
            "flow_scale": np.ascontiguousarray(to_sampling[None], np.float32),
        },
        head=_head(reach(GRID_X, GRID_Y), (width, height), to_crop),
        to_crop=to_crop,
        window=(min(height, int(np.ceil(down))), min(width, int(np.ceil(across)))),
    )


def _head(reach: tuple[int, int, int, int], size: tuple[int, int], to_crop: Affine) -> Region:
    """All that can move: left, top, right, bottom of an image of `size`, made even.

    The flow is smooth, so it is looked up for every second pixel, between four of them, and one such
    step beyond the box on each side: `move` enlarges and cuts it.
    """
    left, top, right, bottom = reach
    width, height = size
    right, bottom = (
        end if not (end - begin) % 2 else end + 1 if end < limit else end - 1
        for begin, end, limit in ((left, right, width), (top, bottom, height))
    )
    rows, columns = np.mgrid[top - 1 : bottom + 3 : 2, left - 1 : right + 3 : 2].astype(np.float32)
    unit = apply(to_crop, np.stack([columns, rows], -1))
    base = np.stack([_sampling(columns, width), _sampling(rows, height)], -1)[None]
    at = {"flow_at": _look_up(unit, GRID_X, GRID_Y), "base_at": base}
    return Region((slice(top, bottom), slice(left, right)), at)
