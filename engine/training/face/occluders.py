"""Things before a mouth, drawn: masks, microphones, hands, cloth, objects, smears.

Each kind returns what it looks like, (H, W, 3), and where it is, (H, W) in [0, 1]; `cover` lays one over a
face and says how much of the lips can still be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.face.landmarks import face_unit
from engine.face.topology import INNER_LOWER_LIP, JAW, OUTER_LOWER_LIP, OUTER_UPPER_LIP

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Rng = np.random.Generator
Drawn = tuple[F32, F32]

LIPS = (*OUTER_UPPER_LIP, *OUTER_LOWER_LIP[-2:0:-1])
_SKIN = (205, 425, 50, 280, 151)  # cheeks and forehead


def lip_mask(landmarks: F32, shape: Sequence[int]) -> F32:
    """Where the lips are, (H, W) in [0, 1], of landmarks (478, 2) in pixels."""
    return _filled(landmarks[list(LIPS)], shape)


def cover(rng: Rng, rgb: U8, landmarks: F32, others: Sequence[U8]) -> tuple[U8, float, str]:
    """Lay something over the face of an image (H, W, 3), often over its mouth.

    Args:
        landmarks: (478, 2) in pixels.
        others: further images, any size, whose parts cover the mouth too.

    Returns:
        the image, the share of the lips that is still seen, and the kind of thing.
    """
    kind = str(rng.choice(list(KINDS)))
    look, where = KINDS[kind](rng, rgb, landmarks, others)
    lips = lip_mask(landmarks, rgb.shape)
    seen = 1 - float((lips * where).sum() / max(float(lips.sum()), 1e-6))
    laid = rgb + (look - rgb) * where[..., None]
    return np.clip(laid, 0, 255).astype(np.uint8), seen, kind


def gape(rng: Rng, rgb: U8, landmarks: F32) -> tuple[U8, float]:
    """Open the mouth of an image (H, W, 3) wide: the jaw goes down, and it is dark between the lips.

    Args:
        landmarks: (478, 2) in pixels.

    Returns:
        the image, and by how much of the face's height the lips moved apart.
    """
    height = float(np.linalg.norm(landmarks[10] - landmarks[152]))
    drop = height * rng.uniform(0.05, 0.3)
    right, left = landmarks[78], landmarks[308]
    centre = (right + left + landmarks[13] + landmarks[14]) / 4
    half = np.linalg.norm(left - right) / 2 * rng.uniform(0.85, 1.05)
    roll = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]].astype(np.float32)
    x, y = x - centre[0], y - centre[1]
    across, down = x * np.cos(roll) + y * np.sin(roll), y * np.cos(roll) - x * np.sin(roll)
    arch = np.sqrt(np.clip(1 - np.square(across / half), 0, 1))
    wide = np.exp(-np.square(across / (1.1 * half)) / 2)  # cheeks follow the jaw
    up = 0.15 * drop * arch
    below = np.clip((down - drop * arch * 0.85) / (0.6 * height), 0, 1)
    moved = np.where(down > 0, drop * (0.6 * arch + 0.4 * wide) * (1 - below), -0.15 * drop * wide)
    moved *= np.where(down < 0, np.exp(-np.square(down / (0.2 * height))), 1)
    back = down - moved
    source_x = (across * np.cos(roll) - back * np.sin(roll) + centre[0]).astype(np.float32)
    source_y = (across * np.sin(roll) + back * np.cos(roll) + centre[1]).astype(np.float32)
    opened = cv2.remap(rgb, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = ((down > -up) & (down < drop * arch * 0.85)).astype(np.float32)
    inside = cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.8, 2))[..., None]
    throat = rng.uniform(5, 60) * np.array([1, rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9)])
    look = _texture(rng, rgb.shape, throat.astype(np.float32), height)
    if rng.random() < 0.6:  # a tongue
        tongue = np.exp(-np.square((down - 0.75 * drop) / (0.3 * drop)) - np.square(across / half))
        look = look + tongue[..., None] * np.array([120, 55, 55]) * rng.uniform(0.3, 1)
    if rng.random() < 0.6:  # the upper teeth
        teeth = (down + up < rng.uniform(0.12, 0.28) * drop).astype(np.float32)[..., None]
        look = look * (1 - teeth) + teeth * np.array([225, 215, 200]) * rng.uniform(0.5, 1)
    out = opened + (look - opened) * inside
    return np.clip(out, 0, 255).astype(np.uint8), drop / height


def _filled(points: F32, shape: Sequence[int], soft: float = 1.0) -> F32:
    """A polygon (N, 2) in pixels as (H, W) in [0, 1] with an edge `soft` pixels wide."""
    mask = np.zeros(shape[:2], np.float32)
    cv2.fillPoly(mask, [np.round(points * 8).astype(np.int32)], 1.0, cv2.LINE_AA, 3)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), soft), np.float32)


def _texture(rng: Rng, shape: Sequence[int], colour: F32, unit: float) -> F32:
    """A colour (3,) with light from one side, folds, and a weave or none: (H, W, 3)."""
    height, width = shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(unit)
    turn = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.35) * (x * np.cos(turn) + y * np.sin(turn) - 1)
    if rng.random() < 0.5:
        light += rng.uniform(0.02, 0.12) * np.sin(y * rng.uniform(6, 40) + rng.uniform(0, 6))
    if rng.random() < 0.3:
        light += rng.uniform(0.02, 0.15) * np.sin(x * rng.uniform(6, 60) + y * rng.uniform(-30, 30))
    grain = cv2.resize(rng.standard_normal((24, 24)).astype(np.float32), (width, height))
    light += rng.uniform(0, 0.12) * grain
    noise = rng.standard_normal((height, width, 1)).astype(np.float32) * rng.uniform(0, 9)
    return np.asarray(colour * light[..., None] + noise, np.float32)


def _colour(rng: Rng) -> F32:
    """White, black, surgical blue, or anything."""
    named = ((238, 238, 236), (28, 28, 32), (150, 190, 215), (120, 160, 150), (90, 90, 95))
    if rng.random() < 0.6:
        return np.array(named[rng.integers(len(named))], np.float32) + rng.uniform(-18, 18)
    return rng.uniform(15, 240, 3).astype(np.float32)


def _skin(rng: Rng, rgb: U8, landmarks: F32) -> F32:
    """A colour (3,) of this face's skin, lighter or darker."""
    x, y = landmarks[rng.choice(_SKIN)].astype(int)
    near = rgb[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4].reshape(-1, 3)
    base = np.median(near, 0) if len(near) else np.array([190.0, 150.0, 130.0])
    return (base * rng.uniform(0.7, 1.2) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)


def _mouth(rng: Rng, landmarks: F32, spread: float) -> F32:
    """A place (2,) about the mouth, `spread` of the face's unit away."""
    middle = landmarks[list(INNER_LOWER_LIP)].mean(0)
    return (middle + rng.normal(0, spread, 2) * face_unit(landmarks)).astype(np.float32)


def _mask(rng: Rng, rgb: U8, landmarks: F32, others: Sequence[U8]) -> Drawn:
    """Worn over nose and chin, or pulled below the nose or the mouth."""
    unit = face_unit(landmarks)
    rim = landmarks[list(JAW[3:-3])]
    chin = rim.mean(0)
    rim = chin + (rim - chin) * rng.uniform(0.96, 1.1)
    top = landmarks[
        int(rng.choice([6, 197, 5, 4, 2, 0, 17, 200], p=[0.1, 0.25, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05]))
    ]
    edge = [landmarks[454] * 0.6 + top * 0.4, top, landmarks[234] * 0.6 + top * 0.4]
    drop = np.array([0, max(0.0, float(top[1] - rim[:, 1].min()))], np.float32)
    edge = [edge[0] + drop * 0.5, edge[1], edge[2] + drop * 0.5]
    points = np.vstack(
        [rim[rim[:, 1] > top[1] - 0.2 * unit], edge[::-1] if rim[0, 0] > rim[-1, 0] else edge]
    )
    hull = cv2.convexHull(points.astype(np.float32))[:, 0]
    where = _filled(hull, rgb.shape, rng.uniform(0.6, 2))
    look = _texture(rng, rgb.shape, _colour(rng), unit)
    y = np.mgrid[: rgb.shape[0], : rgb.shape[1]][0].astype(np.float32)
    for _ in range(rng.integers(0, 5)):  # folds
        at = rng.uniform(points[:, 1].min(), points[:, 1].max())
        look -= (rng.uniform(5, 40) * np.exp(-np.square((y - at) / (0.015 * unit))))[..., None]
    return look, where


def _microphone(rng: Rng, rgb: U8, landmarks: F32, others: Sequence[U8]) -> Drawn:
    """A ball of wire or foam on a stick that comes from below or from one side."""
    unit, at = face_unit(landmarks), _mouth(rng, landmarks, 0.2)
    radius = unit * rng.uniform(0.13, 0.4)
    angle = np.pi / 2 + rng.normal(0, 0.7)
    along = np.array([np.cos(angle), np.sin(angle)])
    where = np.zeros(rgb.shape[:2], np.float32)
    thick = max(2, int(radius * rng.uniform(0.7, 1.5)))
    far = at + along * unit * 4
    cv2.line(where, _pixel(at), _pixel(far), 1.0, thick, cv2.LINE_AA)
    stretch = rng.uniform(0.85, 1.5)
    axes = (int(radius * stretch), int(radius))
    cv2.ellipse(where, _pixel(at), axes, np.degrees(angle), 0, 360, 1.0, -1, cv2.LINE_AA)
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]].astype(np.float32)
    dark = rng.uniform(15, 90, 1) * np.ones(3) if rng.random() < 0.75 else rng.uniform(10, 230, 3)
    look = _texture(rng, rgb.shape, dark.astype(np.float32), unit)
    shine = at - radius * rng.uniform(0.2, 0.6) * np.array([rng.choice([-1, 1]), 1])
    glow = np.exp(-(np.square(x - shine[0]) + np.square(y - shine[1])) / (0.5 * radius**2))
    look += (rng.uniform(10, 110) * glow)[..., None]
    if rng.random() < 0.5:  # grille
        pitch = max(2.0, radius / rng.uniform(4, 14))
        grid = np.sin((x + y) * 2 * np.pi / pitch) * np.sin((x - y) * 2 * np.pi / pitch)
        look += (rng.uniform(5, 35) * grid)[..., None]
    return look.astype(np.float32), np.asarray(
        cv2.GaussianBlur(where, (0, 0), rng.uniform(0.5, 1.5))
    )


def _hand(rng: Rng, rgb: U8, landmarks: F32, others: Sequence[U8]) -> Drawn:
    """Fingers side by side on a palm, from any side."""
    unit, at = face_unit(landmarks), _mouth(rng, landmarks, 0.25)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    width = unit * rng.uniform(0.11, 0.2)
    count = int(rng.integers(1, 6))
    skin = _skin(rng, rgb, landmarks)
    where = np.zeros(rgb.shape[:2], np.float32)
    look = _texture(rng, rgb.shape, skin, unit * 2)
    for i in range(count):
        start = at + across * (i - (count - 1) / 2) * width * 1.02
        tip = start + along * unit * rng.uniform(-0.05, 0.35)
        root = start - along * unit * rng.uniform(0.6, 1.4)
        one = np.zeros_like(where)
        cv2.line(one, _pixel(tip), _pixel(root), 1.0, max(2, int(width)), cv2.LINE_AA)
        rim = cv2.GaussianBlur(one, (0, 0), max(width * 0.12, 0.6))
        look -= ((1 - rim) * one * rng.uniform(60, 130))[..., None] * (skin / 255)
        where = np.maximum(where, one)
    if rng.random() < 0.4:
        palm = at - along * unit * rng.uniform(0.6, 1.0)
        axes = (int(unit * 0.45), int(width * count * 0.6))
        cv2.ellipse(where, _pixel(palm), axes, np.degrees(angle), 0, 360, 1.0, -1, cv2.LINE_AA)
    return look, np.asarray(cv2.GaussianBlur(where, (0, 0), rng.uniform(0.5, 1.5)))


def _cloth(rng: Rng, rgb: U8, landmarks: F32, others: Sequence[U8]) -> Drawn:
    """A scarf or a collar that reaches up to the mouth, above it or below it."""
    unit, at = face_unit(landmarks), _mouth(rng, landmarks, 0.25)
    height, width = rgb.shape[:2]
    x = np.linspace(0, width, 9)
    wave = rng.normal(0, 0.04, 9) * unit + (x - at[0]) * rng.normal(0, 0.12)
    top = np.c_[x, at[1] - rng.uniform(-0.1, 0.25) * unit + wave]
    points = np.vstack([top, [[width, height], [0, height]]]).astype(np.float32)
    return _texture(rng, rgb.shape, _colour(rng), unit), _filled(
        points, rgb.shape, rng.uniform(0.6, 3)
    )


def _thing(rng: Rng, rgb: U8, landmarks: F32, others: Sequence[U8]) -> Drawn:
    """A phone, a cup, a leaf, hair, a part of another image: any outline."""
    unit, at = face_unit(landmarks), _mouth(rng, landmarks, 0.25)
    corners = int(rng.integers(3, 9))
    turn = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(0.2, 0.6, (corners, 1)) * unit
    points = (at + reach * np.c_[np.cos(turn), np.sin(turn)]).astype(np.float32)
    if rng.random() < 0.5:
        side = (float(unit * rng.uniform(0.15, 0.9)), float(unit * rng.uniform(0.2, 0.9)))
        points = cv2.boxPoints((_pixel(at), side, float(rng.uniform(0, 90)))).astype(np.float32)
    if rng.random() < 0.5:
        other = others[rng.integers(len(others))]
        part = max(8, int(min(other.shape[:2]) * rng.uniform(0.15, 0.6)))
        y, x = (int(rng.integers(0, n - part + 1)) for n in other.shape[:2])
        look = cv2.resize(other[y : y + part, x : x + part], rgb.shape[1::-1]).astype(np.float32)
    else:
        look = _texture(rng, rgb.shape, _colour(rng), unit)
    return look, _filled(points, rgb.shape, rng.uniform(0.5, 2))


def _smear(rng: Rng, rgb: U8, landmarks: F32, others: Sequence[U8]) -> Drawn:
    """The face's own skin in the mouth's place, or the mouth blurred or in squares."""
    unit, at = face_unit(landmarks), _mouth(rng, landmarks, 0.1)
    axes = (unit * rng.uniform(0.3, 0.5), unit * rng.uniform(0.16, 0.4))
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points = (at + np.c_[np.cos(turn) * axes[0], np.sin(turn) * axes[1]]).astype(np.float32)
    where = _filled(points, rgb.shape, unit * rng.uniform(0.02, 0.08))
    way = rng.random()
    if way < 0.4:
        look = _texture(rng, rgb.shape, _skin(rng, rgb, landmarks), unit)
    elif way < 0.7:
        cells = max(2, int(min(rgb.shape[:2]) / (unit * rng.uniform(0.25, 0.5))))
        small = cv2.resize(rgb, (cells, cells), interpolation=cv2.INTER_AREA)
        look = cv2.resize(small, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    else:
        look = cv2.GaussianBlur(rgb, (0, 0), unit * rng.uniform(0.15, 0.3))
    return np.asarray(look, np.float32), where


def _pixel(point: NDArray[np.floating]) -> tuple[int, int]:
    return int(point[0]), int(point[1])


KINDS: dict[str, Callable[[Rng, U8, F32, Sequence[U8]], Drawn]] = {
    "mask": _mask,
    "microphone": _microphone,
    "hand": _hand,
    "cloth": _cloth,
    "thing": _thing,
    "smear": _smear,
}
