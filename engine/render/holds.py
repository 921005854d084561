"""What of a portrait stays when its head moves: shoulders, clothes, what the picture's edge cuts.

The neck goes along with the head, the less the farther from the jaw; where it is covered, what covers it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.face.landmarks import apply, invert
from engine.face.topology import LOWER_JAW, NECK, NOSE_RIDGE, OVAL
from engine.render.base import Portrait
from engine.render.lab import to_lab

F32 = NDArray[np.float32]

BARE, CLOTHED = [share for _, share in NECK], [0.4, 0.05, 0.0]
EVEN = np.array([1, 2, 3, 2, 1], np.float32)
RING = len(NECK) * len(LOWER_JAW)  # of the neck's points
POINTS = 96  # that stay
NOWHERE = 99.0  # crop units: a point there holds nothing
# Points that stay where the background is not told from the person: the frame of everything the head does not carry.
FRAME = np.array(
    [(x, y) for y in (-2.4, 2.0) for x in np.linspace(-1.5, 2.5, 9)]
    + [(x, y) for x in (-1.5, 2.5) for y in np.linspace(-2.0, 1.7, 8)]
    + [(x, 1.75) for x in (-1.0, -0.5, 1.5, 2.0)],
    np.float32,
)
EDGES = 10  # points of each edge of the picture
STEP = 0.2  # crop units between points on clothes
NEAR = 0.4  # and from the jaw to the first of them: nearer, and they would crease the neck
APART = 14.0  # of colour (a*, b*), from which on a covered neck is told from skin
DARKER = 45.0  # of L*, or lighter by 18: skin in the shadow of the chin is dark, but no skin is lighter than the face
LIGHTER = 18.0


@dataclass(frozen=True, slots=True)
class Holds:
    """What holds a portrait in its place, in crop units level with the portrait's rows."""

    anchors: F32  # (1, 96, 2) points that stay
    shares: F32  # (1, 45) of the head's motion that the neck's points take part in


def whole_picture() -> Holds:
    """The holds of a portrait whose background is not told from the person."""
    shares = np.repeat(BARE, len(LOWER_JAW))
    return Holds(_filled(FRAME), shares[None].astype(np.float32))


def holds(portrait: Portrait, turn: F32) -> Holds:
    """The holds of a portrait whose matte is known.

    Args:
        turn: (1, 2, 2) from directions of the crop to those of the portrait's rows and columns.
    """
    assert portrait.matte is not None
    matte, to_crop = portrait.matte, portrait.to_crop
    back, level, source = invert(to_crop), turn[0], portrait.source

    def pixels(points: F32) -> F32:  # of points in crop units level with the rows
        return apply(back, (points - 0.5) @ level + 0.5)

    edges = _edges(matte.shape)
    edges = (apply(to_crop, edges) - 0.5) @ level.T + 0.5
    frame = np.concatenate([FRAME, edges[np.abs(edges - [0.5, -0.2]).max(1) < 2.3]])
    frame = frame[_at(matte, pixels(frame)) > 0.5]
    cloth = _below(source, level)
    cloth = cloth[_worn(portrait, matte, pixels(cloth))][: POINTS // 2]
    covered = _worn(portrait, matte, apply(back, _rings(source))).reshape(len(NECK), -1)
    covered = np.stack([_evened(ring.astype(np.float32)) for ring in covered])
    shares = np.array(BARE)[:, None] + covered * (np.array(CLOTHED) - BARE)[:, None]
    anchors = _filled(np.concatenate([cloth, frame]))
    return Holds(anchors, shares.reshape(1, -1).astype(np.float32))


def _evened(ring: F32) -> F32:
    """Values (15,) of points along the jaw, evened out: what one point does its neighbours nearly do."""
    return np.convolve(np.pad(ring, 2, mode="edge"), EVEN / EVEN.sum(), "valid").astype(np.float32)


def _filled(points: F32) -> F32:
    """The first of points (N, 2), and what is missing far away: (1, 96, 2)."""
    filled = np.full((1, POINTS, 2), NOWHERE, np.float32)
    filled[0, : len(points)] = points[:POINTS]
    return filled


def _at(values: NDArray[Any], pixels: F32) -> F32:
    """Values (H, W, ...) at places (N, 2); beyond the picture those of its edge."""
    height, width = values.shape[:2]
    x, y = np.clip(pixels, 0, [width - 1, height - 1]).astype(int).T
    return np.asarray(values[y, x], np.float32)


def _edges(size: tuple[int, ...]) -> F32:
    """Points on the edges of a picture of `size`, in pixels."""
    height, width = size
    along = np.linspace(0, 1, EDGES)
    across, down = along * width, along * height
    level = [np.c_[across, np.full(EDGES, y)] for y in (0, height)]
    upright = [np.c_[np.full(EDGES, x), down] for x in (0, width)]
    return np.concatenate([*level, *upright]).astype(np.float32)


def _rings(source: F32) -> F32:
    """The neck's points (45, 2) of landmarks (478, 2), as `engine.nets.geometry.neck_points` has them."""
    jaw = source[list(LOWER_JAW)]
    out = jaw - source[NOSE_RIDGE[-2]]
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return np.concatenate([jaw + reach * out for reach, _ in NECK], dtype=np.float32)


def _below(source: F32, level: F32) -> F32:
    """A grid of points below the chin, the nearest to the neck first, level with the rows."""
    upright = (source - 0.5) @ level.T + 0.5
    chin, jaw = upright[152], upright[list(LOWER_JAW)]
    x, y = np.meshgrid(np.arange(-1.5, 1.51, STEP), np.arange(0.1, 1.6, STEP))
    grid = (chin + np.c_[x.ravel(), y.ravel()]).astype(np.float32)
    near = np.linalg.norm(grid[:, None] - jaw, axis=-1).min(1)
    order = np.argsort(near)
    return np.asarray(grid[order][near[order] > NEAR], np.float32)


def _worn(portrait: Portrait, matte: F32, pixels: F32) -> NDArray[np.bool_]:
    """Whether places (N, 2) of the person are neither skin nor hair, as far as colours tell."""
    landmarks = portrait.landmarks

    def colours(points: F32) -> F32:
        return to_lab(_at(portrait.rgb, points) / np.float32(255))

    crown = landmarks[list(OVAL[:4])] + 0.12 * (landmarks[10] - landmarks[152])
    skin, hair = (np.median(colours(points), axis=0) for points in (landmarks, crown))
    lab = colours(pixels)
    lightness = lab[:, 0] - skin[0]
    is_skin = np.linalg.norm(lab[:, 1:] - skin[1:], axis=-1) < APART
    is_skin &= (lightness > -DARKER) & (lightness < LIGHTER)
    is_hair = np.linalg.norm(lab - hair, axis=-1) < APART
    return np.asarray((_at(matte, pixels) > 0.9) & ~is_skin & ~is_hair)
