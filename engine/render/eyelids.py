"""Closes the eyes of a portrait: lids of its own skin come down over them, with the lashes on the edge.

Stretching the strip of skin above an eye darkens a deep-set one, for that strip is all shadow and
lashes, and leaves a glint of the eye. So the lid is made once a portrait, out of the colour of the
skin above and below the eye; a blink then lays it over the portrait, before the head is moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.face.topology import LEFT_LIDS, RIGHT_LIDS

F32 = NDArray[np.float32]
UNDER_BROWS = ((46, 53, 52, 65, 55), (285, 295, 282, 283, 276))  # their lower edge, as the lids run
MEET = 1.05  # of the way to the lower lid: the lids meet a little below where it was
LASHES = 0.16  # of the eye's width: how far the dark of the lashes reaches
CORNER = 0.06  # of the eye's width: how softly the lid ends at the corners
CREASE = 0.08  # how much darker the lid is where it comes out from under the brow
SHADE = 0.94  # of the skin around it: a lid faces a little downwards


@dataclass(frozen=True, slots=True)
class Eye:
    """One eye of a portrait and its lid. Read-only; all maps are (h, w) of its box, in pixels."""

    box: tuple[slice, slice]  # rows, columns
    depth: F32  # below the line through the corners
    upper: F32  # where in the column's direction the upper lid's edge is
    lower: F32
    down: F32  # (2,) unit vector across the eye
    column: F32  # pixel centres
    row: F32
    skin: F32  # (3, h, w) the lid
    inside: F32  # 1 between the corners, 0 beyond
    lashes: float  # pixels


def make_lids(rgb: NDArray[np.uint8], landmarks: F32) -> tuple[Eye, Eye]:
    """Lids for the right and the left eye of a portrait (H, W, 3) with landmarks (478, 2), pixels."""
    right, left = (
        _make_lid(rgb, landmarks, upper, lower, brow)
        for (upper, lower), brow in zip((RIGHT_LIDS, LEFT_LIDS), UNDER_BROWS, strict=True)
    )
    return right, left


def _make_lid(
    rgb: NDArray[np.uint8],
    landmarks: F32,
    upper: tuple[int, ...],
    lower: tuple[int, ...],
    brow: tuple[int, ...],
) -> Eye:
    start, end = landmarks[upper[0]], landmarks[upper[-1]]
    width = float(np.linalg.norm(end - start))
    along = (end - start) / width
    down = np.array([-along[1], along[0]], np.float32)

    def edge(points: tuple[int, ...], at: F32) -> F32:
        """Depth of a line of points where the eye's width is `at`."""
        local = (landmarks[list(points)] - start) @ np.stack([along, down], 1)
        order = np.argsort(local[:, 0])
        return np.asarray(np.interp(at, local[order, 0], local[order, 1]), np.float32)

    reach = landmarks[[*upper, *lower]]
    low = np.floor(reach.min(0) - 0.35 * width).astype(int)
    high = np.ceil(reach.max(0) + 0.35 * width).astype(int)
    left, top = np.clip(low, 0, (rgb.shape[1] - 1, rgb.shape[0] - 1))
    right, bottom = np.clip(high, (left + 1, top + 1), (rgb.shape[1], rgb.shape[0]))
    row, column = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
    place = np.stack([column - start[0], row - start[1]], -1)
    across, depth = place @ along, place @ down
    inside = _smooth(np.minimum(across, width - across) / (CORNER * width) + 0.5)
    at = np.linspace(0, width, 19, dtype=np.float32)
    u, b, under = edge(upper, at), edge(brow, at), edge(lower, at)
    depths = (0.5 * u + 0.5 * b, 0.35 * u + 0.65 * b, under + 0.18 * width, under + 0.25 * width)
    places = np.stack([start + at[:, None] * along + d[:, None] * down for d in depths])
    picture = rgb.transpose(2, 0, 1).astype(np.float32)
    return Eye(
        box=(slice(top, bottom), slice(left, right)),
        depth=depth,
        upper=edge(upper, across),
        lower=edge(lower, across),
        down=down,
        column=column,
        row=row,
        skin=_lid_colour(picture, places, across / width),
        inside=inside,
        lashes=LASHES * width,
    )


def _lid_colour(picture: F32, places: F32, across: F32) -> F32:
    """Colour of a lid from the skin around the eye.

    Args:
        picture: (3, H, W).
        places: (rows, n, 2) pixels of skin, from corner to corner, above and below the eye.
        across: (h, w) where the eye's width is in [0, 1].

    Returns:
        (3, h, w): the median of the rows, as a slope from corner to corner.
    """
    colours = np.median(sample(picture, places[..., 0], places[..., 1]), 1)  # (3, n)
    at = np.linspace(0, 1, places.shape[1])
    start, slope = np.polynomial.polynomial.polyfit(at, colours.T, 1)  # (3,) each
    shade = start[:, None, None] + slope[:, None, None] * np.clip(across, 0, 1)
    return np.asarray(SHADE * shade, np.float32)


def close_lids(portrait: F32, eyes: tuple[Eye, Eye], blink: F32) -> F32:
    """The portrait (3, H, W) with its right and left eye closed by `blink` (2,) in [0, 1]."""
    closed = portrait.copy()
    for eye, amount in zip(eyes, blink, strict=True):
        if amount > 0:
            closed[:, *eye.box] = _lay_lid(portrait, eye, float(amount))
    return closed


def _lay_lid(portrait: F32, eye: Eye, amount: float) -> F32:
    drop = np.float32(amount * MEET) * (eye.lower - eye.upper)  # how far the edge has come down
    # Below the open and the present edge, in lashes; negative on the lid.
    open_edge = np.asarray((eye.depth - eye.upper) / eye.lashes, np.float32)
    from_edge = np.asarray((eye.depth - eye.upper - drop) / eye.lashes, np.float32)
    lid = eye.skin * np.asarray(1 - CREASE * _smooth(1 - open_edge), np.float32)
    # The dark of the lashes comes down with the edge; nothing of the eye below does.
    up = drop + np.maximum(eye.depth - eye.upper - drop, 0)
    lashes = sample(portrait, eye.column - eye.down[0] * up, eye.row - eye.down[1] * up)
    lid = lid + _smooth(1 + from_edge) * np.minimum(lashes - lid, 0)
    over = _smooth(1 - from_edge / np.float32(0.35)) * _smooth(open_edge + np.float32(1.5))
    over = over * eye.inside * np.float32(min(4 * amount, 1))
    here = portrait[:, *eye.box]
    return np.asarray(here + over * (lid - here), np.float32)


def sample(picture: F32, x: F32, y: F32) -> F32:
    """Values (3, ...) of `picture` (3, H, W) at pixel positions x, y (...), bilinear."""
    height, width = picture.shape[1:]
    x, y = np.clip(x - 0.5, 0, width - 1.001), np.clip(y - 0.5, 0, height - 1.001)
    i, j = x.astype(int), y.astype(int)
    fx, fy = (x - i).astype(np.float32), (y - j).astype(np.float32)
    top = picture[:, j, i] * (1 - fx) + picture[:, j, i + 1] * fx
    below = picture[:, j + 1, i] * (1 - fx) + picture[:, j + 1, i + 1] * fx
    return np.asarray(top * (1 - fy) + below * fy, np.float32)


def _smooth(value: F32) -> F32:
    """0 below 0, 1 above 1, and no corner between."""
    inside = np.clip(value, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), np.float32)
