"""Closes the eyes of a portrait: lids of its own skin come down over them, with the lashes on the edge.

Stretching the strip of skin above an eye darkens a deep-set one, for that strip is all shadow and
lashes, and leaves a glint of the eye. So the lid is made once a portrait (`engine.render.lid_skin`); a
blink then lays it over the portrait, as far down as its edge has come, before the head is moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.face.topology import LEFT_LIDS, RIGHT_LIDS
from engine.render.lid_skin import (
    BINS,
    LASHES,
    Columns,
    lash_table,
    lid_colours,
    place_pixels,
    read_skin,
    smooth,
)

F32 = NDArray[np.float32]
UNDER_BROWS = ((46, 53, 52, 65, 55), (285, 295, 282, 283, 276))  # their lower edge, as the lids run
MEET = 1.12  # of the way to the lower lid: the lids meet a little below where it was
CORNER = 0.1  # of the eye's width: how softly the lid ends at the corners
EDGE = 0.015  # of the eye's width: how softly it ends at its edge
BOUND = 0.35  # of the eye's width: how far around the eye a lid may reach


@dataclass(frozen=True, slots=True)
class Eye:
    """One eye of a portrait and its lid. Read-only; all maps are (h, w) of its box."""

    box: tuple[slice, slice]  # rows, columns
    depth: F32  # below the open upper lid's edge, pixels
    opening: F32  # from the open edge to where it comes down to, pixels
    skin: F32  # (3, h, w) the lid
    over: F32  # how far it covers what is under it
    drawn: F32  # and, once the eye is closed, what is above it
    lashes: F32  # (n * BINS,) how dark they make it, see `lash_table`
    column: NDArray[np.intp]  # where the lashes of each pixel begin in that
    width: float  # of the eye, pixels


def make_lids(rgb: NDArray[np.uint8], landmarks: F32) -> tuple[Eye, Eye]:
    """Lids for the right and the left eye of a portrait (H, W, 3) with landmarks (478, 2), pixels."""
    right, left = (
        _make_lid(rgb, landmarks, lids, brow)
        for lids, brow in zip((RIGHT_LIDS, LEFT_LIDS), UNDER_BROWS, strict=True)
    )
    return right, left


def _make_lid(
    rgb: NDArray[np.uint8],
    landmarks: F32,
    lids: tuple[tuple[int, ...], tuple[int, ...]],
    brow: tuple[int, ...],
) -> Eye:
    eye = _columns(landmarks, lids, brow)
    reach = landmarks[[*lids[0], *lids[1]]]
    low = np.floor(reach.min(0) - BOUND * eye.width).astype(int)
    high = np.ceil(reach.max(0) + BOUND * eye.width).astype(int)
    left, top = np.clip(low, 0, (rgb.shape[1] - 1, rgb.shape[0] - 1))
    right, bottom = np.clip(high, (left + 1, top + 1), (rgb.shape[1], rgb.shape[0]))
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
    picture = rgb.transpose(2, 0, 1).astype(np.float32)
    skin = read_skin(picture, eye)
    at = place_pixels(eye, skin, x, y)
    inside = smooth(np.minimum(at.across, 1 - at.across) / CORNER + 0.45)
    n = len(eye.upper)
    return Eye(
        box=(slice(top, bottom), slice(left, right)),
        depth=at.depth,
        opening=MEET * at.opening,
        skin=lid_colours(rgb, skin, eye, at),
        over=inside * smooth((at.depth + 1.2 * at.rise) / (0.8 * at.rise)),
        drawn=inside * smooth(3 + 3 * at.depth / at.room),
        lashes=lash_table(picture, skin, eye).ravel(),
        column=BINS * np.clip((at.across * n).astype(np.intp), 0, n - 1),
        width=eye.width,
    )


def _columns(
    landmarks: F32, lids: tuple[tuple[int, ...], tuple[int, ...]], brow: tuple[int, ...]
) -> Columns:
    """The columns of one eye, about one a pixel."""
    start, end = landmarks[lids[0][0]], landmarks[lids[0][-1]]
    width = float(np.linalg.norm(end - start))
    along = (end - start) / width
    down = np.array([-along[1], along[0]], np.float32)
    n = max(16, round(width))
    at = (np.arange(n, dtype=np.float32) + 0.5) / n

    def local(points: tuple[int, ...]) -> F32:
        found = (landmarks[list(points)] - start) @ np.stack([along, down], 1)
        return np.asarray(found[np.argsort(found[:, 0])], np.float32)

    def edge(points: tuple[int, ...]) -> F32:
        """A smooth curve near a lid's edge, through the corners."""
        x, y = local(points)[1:-1].T / width
        bow = (x * (1 - x))[:, None] * np.vander(x, 4)
        shape = np.linalg.lstsq(bow, y, rcond=1e-6)[0]
        return np.asarray(width * at * (1 - at) * (np.vander(at, 4) @ shape), np.float32)

    above = local(brow)
    brow_edge = np.asarray(np.interp(at * width, above[:, 0], above[:, 1]), np.float32)
    return Columns(start, along, down, width, edge(lids[0]), edge(lids[1]), brow_edge)


def close_lids(portrait: F32, eyes: tuple[Eye, Eye], blink: F32) -> F32:
    """The portrait (3 and more, H, W) with its right and left eye closed by `blink` (2,) in [0, 1]."""
    closed = portrait.copy()
    for eye, amount in zip(eyes, blink, strict=True):
        if amount > 0:
            closed[:3, *eye.box] = _lay_lid(portrait[:3, *eye.box], eye, float(amount))
    return closed


def _lay_lid(here: F32, eye: Eye, amount: float) -> F32:
    """What the box of an eye (3, h, w) shows while it is closed by `amount`."""
    below = eye.depth - np.float32(amount) * eye.opening  # the present edge; negative on the lid
    shown = np.float32(min(4 * amount, 1))
    over = np.maximum(shown * eye.over, np.float32(amount) * eye.drawn)
    over *= smooth(1 - below / np.float32(EDGE * eye.width))
    bins = (below / np.float32(eye.width) - np.float32(LASHES[0])) * np.float32(
        (BINS - 1) / (LASHES[1] - LASHES[0])
    )
    at = np.clip(bins, 0, BINS - 1).astype(np.intp) + eye.column
    dark = 1 - shown * (1 - eye.lashes.take(at))
    return np.asarray((here + over * (eye.skin - here)) * dark, np.float32)
