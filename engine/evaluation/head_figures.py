"""Figures of head motion, computed from the poses and the speech energy of each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import FPS
from engine.evaluation.lip_figures import correlation_at

F32 = NDArray[np.float32]
# Degrees, and percent of the distance of the outer eye corners; x, y: of the face in the picture.
AXES = ("yaw", "pitch", "roll", "x", "y")
FIGURES = ("std", "range", "speed", "speed p95")
MOVES = 5.0  # degrees a second, of all three angles together, from which a head is moving
_SMOOTH = 9  # frames of the parabola that takes the reader's noise off (Savitzky-Golay)
_PHRASE = 25  # frames over which the energy is averaged to tell phrases from pauses


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """What is told of one head; angles in degrees, shifts in percent, speeds a second."""

    moved: dict[str, dict[str, float]]  # by `AXES` and `FIGURES`
    moving: float  # share of frames
    largest_step: float  # degrees from a frame to the next, of any angle, not smoothed
    phrase: tuple[
        float, int
    ]  # correlation of pitch with the averaged energy, and its lag in frames
    stress: tuple[float, int]  # of pitch velocity with the energy, as far as it goes down


def smooth(track: F32) -> F32:
    """Tracks (T, n) with a cubic fitted around each frame, T >= 9: slower motion stays as it is."""
    half = _SMOOTH // 2
    powers = np.vander(np.arange(-half, half + 1), 4)
    kernel = np.linalg.pinv(powers)[-1]
    padded = np.pad(track, ((half, half), (0, 0)), mode="edge")
    return np.stack([np.convolve(c, kernel[::-1], "valid") for c in padded.T], 1).astype(np.float32)


def head_figures(track: F32, energy: F32) -> HeadFigures:
    """Figures of a track (T, 5) in the order of `AXES`, spoken with `energy` (T,) in [0, 1]."""
    eased = smooth(track)
    speed = np.gradient(eased, axis=0) * FPS
    low, high = np.percentile(eased, [5, 95], axis=0)
    columns = (
        eased.std(0),
        high - low,
        np.sqrt(np.square(speed).mean(0)),
        np.percentile(np.abs(speed), 95, axis=0),
    )
    moved = {
        axis: {name: float(column[i]) for name, column in zip(FIGURES, columns, strict=True)}
        for i, axis in enumerate(AXES)
    }
    averaged = np.convolve(energy, np.full(_PHRASE, 1 / _PHRASE, np.float32), "same")
    return HeadFigures(
        moved=moved,
        moving=float((np.linalg.norm(speed[:, :3], axis=1) > MOVES).mean()),
        largest_step=float(np.abs(np.diff(track[:, :3], axis=0)).max()),
        phrase=_strongest(averaged, eased[:, 1]),
        stress=_strongest(energy, speed[:, 1], sign=1),
    )


def _strongest(energy: F32, track: F32, sign: int = -1, reach: int = 12) -> tuple[float, int]:
    """Correlation of tracks (T,) where it is the most positive or negative, and the lag of the second."""
    found = [(correlation_at(energy, track, lag), lag) for lag in range(-reach, reach + 1)]
    return max(found, key=lambda pair: sign * pair[0])
