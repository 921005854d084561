"""Rotary positions (arXiv 2104.09864) of the speech encoder's frames, counted from a stream's start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
HEADS, HEAD, ROTATED = 8, 36, 32  # channels of a head, and how many of them turn with position
UNIT = 384 / 320  # positions count frames of 24 ms


def rotations(
    first: int, count: int, *, heads: int = HEADS, head: int = HEAD, rotated: int = ROTATED
) -> F32:
    """What turns the channels of frames `first` to `first + count`: cosines, and signed sines.

    Pairs of channels (a, b) turn to (a cos - b sin, b cos + a sin): each channel by the first table,
    its partner by the second. Angles are exact to the end of any stream: they are worked out in double.

    Returns:
        (2, count, heads * head)
    """
    rate = np.exp(np.arange(rotated // 2) * (-2 * np.log(10_000) / rotated))
    angle = np.zeros((count, head // 2))
    angle[:, : rotated // 2] = (np.arange(first, first + count) / UNIT)[:, None] * rate
    sine = np.stack([-np.sin(angle), np.sin(angle)], -1).reshape(count, head)
    tables = np.stack([np.repeat(np.cos(angle), 2, 1), sine])
    return np.tile(tables, (1, 1, heads)).astype(np.float32)
