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
# Lips count as closed when the gap read back is at most this. Real talkers' closed lips measure
# .0005-.002 and the landmark net adds about as much again; an open vowel is .03-.08.
CLOSED = 0.006


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


def meeting_offset(gap: F32, phones: Sequence[Phone], reach: int = 12) -> float:
    """Frames by which lips trail their sound: the shift at which p, b, m find the smallest gaps (T,) on average.

    Lips meet while a p, b or m is said, so this needs no other model of speech. Raises `ValueError` when
    none is said.
    """
    middles = [FPS * (p.start + p.end) / 2 - 0.5 for p in phones if p.name in BILABIAL]
    if not middles:
        raise ValueError("no p, b or m is said")
    shifts = np.arange(-reach, reach + 0.01, 0.25)
    at = np.array(middles)[:, None] + shifts
    return float(shifts[np.interp(at, np.arange(len(gap)), gap).mean(0).argmin()])


def agreement(own: F32, given: F32, offset: int) -> dict[str, float]:
    """How lips `given` follow a talker's `own`, both (T, 2): gap and width of the mouth.

    Args:
        offset: frames by which the talker's lips trail his sound.
    """
    report: dict[str, float] = {}
    for i, name in enumerate(("gap", "width")):
        lag, r = best_lag(given[:, i], own[:, i])
        report[f"r {name}"] = round(correlation_at(given[:, i], own[:, i], offset), 3)
        report[f"r {name} at its best lag"] = round(r, 3)
        report[f"{name} late by frames"] = offset - lag
        report[f"spread of {name}, of his own"] = round(
            float(given[:, i].std() / own[:, i].std()), 2
        )
    for name, track in (("his", own[:, 0]), ("given", given[:, 0])):
        five = [track[t : t + 5].min() for t in range(0, len(track) - 5, 5)]
        report[f"closed frames, {name}"] = round(float((track <= CLOSED).mean()), 3)
        report[f"closed in five, {name}"] = round(float((np.array(five) <= CLOSED).mean()), 3)
    return report


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
