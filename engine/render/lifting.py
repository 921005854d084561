"""A person lifted off a portrait, and what lies behind: the head moves, the background stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.face.image_colour import GREY
from engine.face.matte import mean_around
from engine.types import RgbImage

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

CLEAN = 0.02  # of a pixel and of those around it may be the person where it is taken for background
AROUND = 0.01  # of the portrait's longer side: how far around


@dataclass(frozen=True, slots=True)
class Lifted:
    """A portrait as two layers; laid over each other as they are they give its pixels again."""

    # (1, 4, H, W) colours in [0, 255], times how much of a pixel is the person; and that
    person: F32
    behind: F32  # (1, 3, H, W) the background, guessed where the person is


def lift(rgb: RgbImage, matte: F32 | None) -> Lifted:
    """Part a portrait (H, W, 3) by how much of each pixel is the person, (H, W) in [0, 1].

    Args:
        matte: None where that is not known: everything moves.
    """
    planes = _planes(rgb)
    if matte is None:
        return Lifted(
            _with(planes, np.ones(rgb.shape[:2], np.float32)), np.zeros_like(planes)[None]
        )
    reach = max(1, round(AROUND * max(rgb.shape[:2])))
    known = mean_around(matte[..., None], reach)[..., 0] < CLEAN
    return _parted(planes, matte, fill(planes, known.astype(np.float32)))


def lift_off_grey(rgb: RgbImage, alpha: U8) -> Lifted:
    """Part a portrait (H, W, 3) that lies on grey by its own alpha (H, W)."""
    behind = np.empty((3, *rgb.shape[:2]), np.float32)
    behind[:] = np.array(GREY, np.float32)[:, None, None]
    return _parted(_planes(rgb), alpha.astype(np.float32) / np.float32(255), behind)


def _planes(rgb: RgbImage) -> F32:
    return np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32)


def _with(colours: F32, alpha: F32) -> F32:
    return np.concatenate([colours, alpha[None]])[None]


def _parted(planes: F32, matte: F32, behind: F32) -> Lifted:
    return Lifted(_with(planes - (1 - matte) * behind, matte), np.ascontiguousarray(behind)[None])


def fill(planes: F32, known: F32) -> F32:
    """Planes (C, H, W) with what is not known filled in smoothly from around it.

    Pull and push: means of what is known on ever coarser grids, and back.

    Args:
        known: (H, W), 1 or 0.
    """
    pyramid = [(planes * known, known)]
    while min(pyramid[-1][1].shape) > 1:
        pyramid.append((_halved(pyramid[-1][0]), _halved(pyramid[-1][1][None])[0]))
    sums, weight = pyramid.pop()
    filled: F32 = np.asarray(sums / np.maximum(weight, 1e-6), np.float32)
    for sums, weight in reversed(pyramid):
        coarse = _doubled(filled, weight.shape)
        sure = known if weight is known else np.minimum(weight * 4, 1)
        own = sums / np.maximum(weight, 1e-6)
        filled = np.asarray(coarse + sure * (own - coarse), np.float32)
    return filled


def _halved(planes: F32) -> F32:
    """Means of squares of four, of (C, H, W)."""
    height, width = planes.shape[1:]
    even = np.pad(planes, ((0, 0), (0, height % 2), (0, width % 2)))
    fours = even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    return np.asarray(fours / 4, np.float32)


def _doubled(planes: F32, size: tuple[int, ...]) -> F32:
    """(C, h, w) twice as large, smoothly, cut to `size`."""
    for axis, length in ((1, size[0]), (2, size[1])):
        last = planes.shape[axis] - 1
        before, after = (
            planes.take(np.clip(np.arange(last + 1) + by, 0, last), axis) for by in (-1, 1)
        )
        pair = np.stack([0.75 * planes + 0.25 * before, 0.75 * planes + 0.25 * after], axis + 1)
        shape = list(planes.shape)
        shape[axis] *= 2
        planes = np.asarray(pair.reshape(shape).take(range(length), axis), np.float32)
    return planes
