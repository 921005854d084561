"""sRGB to CIE L*a*b* (D65) and back: what differences of colour are measured in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R'G'B'
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _TO_XYZ.sum(1)
_KNEE = 6 / 29


def to_lab(rgb: NDArray[Any]) -> F32:
    """sRGB (..., 3) in [0, 1] -> L* in [0, 100], a*, b* (..., 3)."""
    value = np.clip(rgb, 0, 1).astype(np.float64)
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    t = linear @ _TO_XYZ.T / _WHITE
    f = np.where(t > _KNEE**3, np.cbrt(t), t / (3 * _KNEE**2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)


def from_lab(lab: NDArray[Any]) -> F32:
    """Undo `to_lab` for (..., 3), cut to what sRGB can show: (..., 3) in [0, 1]."""
    lightness, a, b = np.moveaxis(lab.astype(np.float64), -1, 0)
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], -1)
    t = np.where(f > _KNEE, f**3, 3 * _KNEE**2 * (f - 4 / 29))
    linear = np.clip((t * _WHITE) @ np.linalg.inv(_TO_XYZ).T, 0, 1)
    value = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(value, np.float32)
