"""Figures of lip motion, computed from sentences with their phones and tracks of the lip gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.motion import correlation
from engine.motion.channels import spread_matrix
from engine.training.motion.rules import mouth
from engine.training.speech.phones import BILABIAL, Phone

F32 = NDArray[np.float32]
FPS = 25


@dataclass(frozen=True, slots=True)
class Said:
    """A spoken sentence with its phones."""

    name: str
    pcm: F32  # (N,) 16 kHz
    phones: list[Phone]


def best_lag(wanted: F32, given: F32, reach: int = 12) -> tuple[int, float]:
    """Frames by which `given` (T,) trails `wanted` (T,) when they agree best, and how well then."""
    return max(
        ((lag, correlation_at(wanted, given, lag)) for lag in range(-reach, reach + 1)),
        key=lambda pair: pair[1],
    )


def correlation_at(wanted: F32, given: F32, lag: int) -> float:
    """Correlation of `wanted[t]` with `given[t + lag]`, tracks (T,); 0 when one does not move."""
    length = min(len(wanted), len(given))
    wanted, given = wanted[:length], given[:length]
    early, late = max(0, -lag), max(0, lag)
    return correlation(wanted[early : length - late], given[late : length - early])


def span_minima(gap: F32, phones: Sequence[Phone]) -> list[float]:
    """Smallest gap (T,) within one frame of each p, b, m whose time lies in the track."""
    minima = []
    for phone in phones:
        first = max(int(np.floor(phone.start * FPS)) - 1, 0)
        last = int(np.ceil(phone.end * FPS)) + 1
        if phone.name in BILABIAL and first < len(gap):
            minima.append(float(gap[first:last].min()))
    return minima


def log_energy(pcm: F32) -> F32:
    """Log energy of each frame (T,) of `pcm` (N,) at 16 kHz."""
    frames = pcm[: len(pcm) // 640 * 640].reshape(-1, 640)
    return np.log(np.sqrt((frames**2).mean(1)) + 1e-3)


def rule_coefficients(said: Said) -> F32:
    """The 52 coefficients (T, 52) that the phone rules give a sentence."""
    track = mouth(said.phones, said.pcm)
    return track[: len(track) // 2 * 2].reshape(-1, 2, track.shape[1]).mean(1) @ spread_matrix()


def percentiles(gap: F32) -> list[float]:
    """The 2nd, 50th and 90th of a track (T,)."""
    return [round(float(v), 4) for v in np.percentile(gap, [2, 50, 90])]
