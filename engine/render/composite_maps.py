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

# Lines of the flow grid in crop units about the crop's centre, level with the portrait's own rows: dense over
# the face, sparse over hair and shoulders.
GRID_X = np.concatenate(
    [np.linspace(-1.5, -0.5, 7), np.linspace(-0.36, 1.36, 41), np.linspace(1.5, 2.5, 7)]
).astype(np.float32)
GRID_Y = np.concatenate(
    [np.linspace(-2.4, -1.4, 7), np.linspace(-1.26, 1.26, 57), np.linspace(1.4, 2.0, 5)]
).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Region:
    """An upright box of a portrait and what its pixels are looked up with."""

    box: tuple[slice, slice]  # rows, columns
    at: dict[str, F32]  # named as in the graph's spec


@dataclass(frozen=True, slots=True)
class CompositeMaps:
    """Where one portrait's pixels find their flow and their painted crop. Read-only."""

    rgb: RgbImage  # (H, W, 3) the portrait itself
    turn: F32  # (1, 2, 2) from directions of the crop to those of the portrait's rows and columns
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
        to_crop: similarity (2, 3) from pixels of `rgb` to crop units.
    """
    back = invert(to_crop)
    unit = float(np.sqrt(np.linalg.det(back[:, :2])))  # pixels
    across, down = WINDOW * np.abs(back[:, :2]).sum(1)
    height, width = rgb.shape[:2]
    return CompositeMaps(
        rgb=rgb,
        turn=np.ascontiguousarray(back[None, :, :2] / unit, np.float32),
        head=_head((height, width), apply(back, np.array([0.5, 0.5], np.float32)), unit),
        to_crop=to_crop,
        window=(min(height, int(np.ceil(down))), min(width, int(np.ceil(across)))),
    )


def _head(size: tuple[int, ...], centre: F32, unit: float) -> Region:
    """All that can move in an image of `size`: the pixels between the lines of the flow grid.

    A grid line has one place on its axis, so the flow of all pixels is two products of matrices:
    `down` (1, h, rows) @ grid (rows, 2 columns) @ `across` (1, 2 columns, 2 w), x and y in turns.
    """
    (y, down, rows), (x, across, columns) = (
        _axis(middle + unit * (lines - 0.5), length)
        for lines, middle, length in ((GRID_Y, centre[1], size[0]), (GRID_X, centre[0], size[1]))
    )
    at = {
        "nodes": np.stack(np.meshgrid(x, y))[None].astype(np.float32),
        "flow_scale": (2 * unit / np.array(size[::-1])).reshape(1, 2, 1, 1).astype(np.float32),
        "down": down[None],
        "across": np.kron(across.T, np.eye(2, dtype=np.float32))[None],
    }
    return Region((rows, columns), at)


def _axis(lines: F32, length: int) -> tuple[F32, F32, slice]:
    """One axis of an image of `length` pixels and the grid's lines (n,) on it, in pixels.

    Returns:
        sampling positions (n,) of the lines, the share (pixels, n) of each line in each pixel between
        the first and the last, and those pixels; the nearest one when there is none.
    """
    begin = int(np.clip(np.ceil(lines[0] - 0.5), 0, length - 1))
    end = int(np.clip(np.floor(lines[-1] + 0.5), begin + 1, length))
    at = np.interp(np.arange(begin, end) + 0.5, lines, np.arange(len(lines)))
    share = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(len(lines))))
    sampling = (2 * lines / length - 1).astype(np.float32)
    return sampling, share.astype(np.float32), slice(begin, end)
