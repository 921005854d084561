"""Make sound a little shorter or longer without a click. Pure.

A piece is left out or repeated where the wave meets itself again, and the joint is cross-faded;
where nothing is to be heard any length will do.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import F32

Sound = NDArray[np.int16]

FADE = 240  # samples: 5 ms at 48 kHz
SHORTEST = 120  # 2.5 ms, a pitch of 400 Hz
LONGEST = 720  # 15 ms, a pitch of 67 Hz
QUIET = 328  # 1 % of full scale
LOUD_FROM = 1440  # 30 ms
ANY_FROM = 2880  # 60 ms
ALIKE = 0.7
STEADY = 1.5
LOOK_BACK = 150  # packets: 3 s
REST = 5  # packets: 100 ms


class Period(NamedTuple):
    """A length by which the sound may be moved, and how alike it is there, -1 to 1."""

    samples: int
    likeness: float


class Stretcher:
    """Changes how much sound waits, packet by packet, where it is heard least.

    That is where nothing is to be heard, or nothing but what always is. In a voice only when
    `LOUD_FROM` samples are to be moved, and a period of it at a time; in sound that does not repeat
    itself only at `ANY_FROM`. Shortening a voice rests for `REST` packets in between, so that speech
    is never more than a tenth faster.
    """

    def __init__(self) -> None:
        self.shortened = 0  # samples left out
        self.lengthened = 0  # samples played twice
        self._rested = REST
        self._loudness: deque[float] = deque(maxlen=LOOK_BACK)

    def adjust(self, pcm: Sound, excess: int, *, at_once: bool) -> Sound:
        """Return `(N,)` as `(N - K,)` if `excess` samples are too many, `(N + K,)` if it is negative.

        K is at most what is asked, often 0. `at_once` spares no voice.
        """
        self._rested += 1
        self._loudness.append(float(np.sqrt(np.mean(np.square(pcm, dtype=np.float32)))))
        most = min(abs(excess), LONGEST, len(pcm) - FADE)
        amount = self._amount(pcm, most, at_once, abs(excess)) if most > 0 else 0
        if amount == 0:
            return pcm
        if excess < 0:
            self.lengthened += amount
            return lengthen(pcm, amount)
        self.shortened += amount
        return shorten(pcm, amount)

    def _amount(self, pcm: Sound, most: int, at_once: bool, wanted: int) -> int:
        if int(np.abs(pcm.astype(np.int32)).max()) < QUIET:
            return most
        steady = self._is_steady()
        if not (steady or at_once or (wanted >= LOUD_FROM and self._rested > REST)):
            return 0
        period = best_period(pcm, most)
        alike = period is not None and period.likeness >= ALIKE
        if steady and not alike:
            return most  # noise is the same everywhere
        if period is None or not (alike or at_once or wanted >= ANY_FROM):
            return 0
        self._rested = 0
        return period.samples

    def _is_steady(self) -> bool:
        """Whether the newest packet is about as quiet as it ever was in the last seconds."""
        known = len(self._loudness) == LOOK_BACK
        return known and self._loudness[-1] <= STEADY * min(self._loudness)


def best_period(pcm: Sound, most: int) -> Period | None:
    """The length of at most `most` after which the start of `(N,)` comes again; None: too short."""
    most = min(most, len(pcm) - FADE)
    if most < SHORTEST:
        return None
    wave = pcm[: most + FADE].astype(np.float32)
    head, later = wave[:FADE], wave[SHORTEST:]
    energies = np.convolve(later**2, np.ones(FADE, np.float32), "valid")
    likeness = np.correlate(later, head, "valid")
    likeness /= np.sqrt(energies * np.sum(head**2)) + 1
    best = int(np.argmax(likeness))
    return Period(SHORTEST + best, float(likeness[best]))


def shorten(pcm: Sound, samples: int) -> Sound:
    """Leave `samples` out of `(N,)`, near its start; returns `(N - samples,)`."""
    kept = pcm[samples:].astype(np.float32)
    kept[:FADE] += (pcm[:FADE] - kept[:FADE]) * _falling()
    return np.asarray(np.rint(kept), dtype=np.int16)


def lengthen(pcm: Sound, samples: int) -> Sound:
    """Play the first `samples` of `(N,)` again; returns `(N + samples,)`."""
    again = pcm.astype(np.float32)
    again[:FADE] += (pcm[samples : samples + FADE] - again[:FADE]) * _falling()
    return np.concatenate([pcm[:samples], np.asarray(np.rint(again), dtype=np.int16)])


def _falling() -> F32:
    return np.linspace(1, 0, FADE, dtype=np.float32)
