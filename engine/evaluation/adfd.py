"""ADFD, the paper's score of facial dynamics: in a consistent reading, and as printed.

Formula (3) of the paper gives 0.51 (pixels) or 840 (unit coordinates) for a video compared with itself:
"+ 1" is added to the dot product instead of the cosine, the sum over points is no mean, and the time of
the second factor is free. `adfd` corrects these as the paper's text describes; `adfd_paper` is as printed,
in coordinates where the frame is 1 x 1.

The motion factor is dominated by the detector's jitter: half a pixel of noise in 256 costs 15 %. Report
the floor beside any number (the truth against its own re-encoding), and never rely on it alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[Any]  # (T, n, 2)
STILL = 1e-9  # a motion shorter than this is none


@dataclass(frozen=True, slots=True)
class Adfd:
    """The score and its two factors, each at most 1."""

    score: float
    spatial: float
    motion: float


def adfd(generated: Points, truth: Points, diagonal: float) -> Adfd:
    """The consistent reading: mean over frames of position, times mean over frames of direction of motion.

    Args:
        generated, truth: landmarks (T, n, 2) by the same detector, T of at least 2.
        diagonal: of the frame, in the landmarks' unit.

    Raises:
        ValueError: shapes differ or there is no second frame.
    """
    _check(generated, truth)
    apart = np.sqrt(np.square(generated - truth).sum(-1).mean(-1))
    spatial = float(np.maximum(0, 1 - apart / diagonal).mean())
    motion = float(((1 + _cosines(generated, truth)) / 2).mean())
    return Adfd(spatial * motion, spatial, motion)


def adfd_paper(generated: Points, truth: Points) -> float:
    """Formula (3) as printed: landmarks (T, n, 2) in [0, 1] of the frame, d = sqrt 2, w1 = w2 = 1.

    The free t of the second factor is taken as a mean over the frames. It has no upper bound.
    """
    _check(generated, truth)
    apart = np.sqrt(np.square(generated - truth).sum((1, 2)) / np.sqrt(2))
    a, b = (np.diff(x, axis=0).reshape(len(x) - 1, -1) for x in (generated, truth))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    moving = lengths > STILL
    if not moving.any():
        return float("nan")
    return float((1 - apart).mean() * (((a * b).sum(1) + 1)[moving] / (2 * lengths[moving])).mean())


def _check(generated: Points, truth: Points) -> None:
    if generated.shape != truth.shape or truth.ndim != 3 or len(truth) < 2:
        raise ValueError(
            f"wants the same (T, n, 2) twice with T >= 2, got {generated.shape} and {truth.shape}"
        )


def _cosines(generated: Points, truth: Points) -> NDArray[np.float64]:
    """Cosine of the motions between frames (T - 1,): 1 where both rest, 0 where one does."""
    a, b = (
        np.diff(x.astype(np.float64), axis=0).reshape(len(x) - 1, -1) for x in (generated, truth)
    )
    long_a, long_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = (long_a > STILL) & (long_b > STILL)
    cosine = np.where((long_a <= STILL) & (long_b <= STILL), 1.0, 0.0)
    cosine[both] = (a * b).sum(1)[both] / (long_a * long_b)[both]
    return cosine
