"""The arithmetic of the doors benchmark: what a listener notices of an utterance. Pure.

Times are wall clock milliseconds; `parted` is the lip gap over the height of the face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOUD = 0.02  # of full scale: the voice is never below it, what is left of it after a cut is
PIECE_S = 0.2  # of sound, by which its place is found
NEAR_S = 0.8  # how far from the time that passed it may be: a voice stretched by so much is noticed
AT_REST = 0.012  # of the face height: lips that part no further are closed to the eye


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of received sound."""

    at: float  # when it was played
    samples: int
    peak: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame that was shown."""

    at: float
    number: int  # of its code strip
    parted: float | None
    spoken: bool = True  # an utterance is on its sound


@dataclass(frozen=True, slots=True)
class Felt:
    """One utterance that was cut off, as it was received; ms, None where it was not to be seen."""

    first_sound: float | None
    first_frame: float | None  # of the utterance
    open_lips: float | None  # the first frame with lips that part
    old_sound: float | None  # after the interruption
    at_rest: float | None  # lips, after the interruption, for good
    old_frames: int  # frames of the old speech that came after sound and lips were at rest
    position_error: float | None  # acknowledged against heard
    heard: float | None  # of the utterance: how far into it the listener came


def feel(
    sounds: Sequence[Sound],
    frames: Sequence[Seen],
    *,
    said: float,
    cut: float,
    position: float | None,
    rate_hz: int,
    heard: float | None,
) -> Felt:
    """Judge one utterance that was sent at `said` and cut off at `cut`.

    Args:
        position: ms of it that were acknowledged.
        heard: ms of it that were heard, None if nothing was.
    """
    loud = [s for s in sounds if s.peak > LOUD and s.at > said]
    parted = [f for f in frames if f.parted is not None and f.at > said]
    speaking = [f for f in parted if (f.parted or 0) > AT_REST]
    after = [f for f in speaking if f.at > cut]
    rest = next((f.at for f in parted if f.at > max((s.at for s in speaking), default=cut)), None)
    silent = loud[-1].at + 1000 * loud[-1].samples / rate_hz if loud else None
    return Felt(
        first_sound=_since(loud[0].at if loud else None, said),
        first_frame=_since(next((f.at for f in parted if f.spoken), None), said),
        open_lips=_since(speaking[0].at if speaking else None, said),
        old_sound=None if silent is None else max(0.0, silent - cut),
        at_rest=None if rest is None else max(0.0, rest - cut),
        old_frames=sum(silent is not None and f.at > silent for f in after),
        position_error=None if position is None or heard is None else abs(position - heard),
        heard=heard,
    )


def heard_until(received: NDArray[np.int16], said: NDArray[np.int16], rate_hz: int) -> float | None:
    """How far into what was said its listener came, in ms; None if he heard nothing of it.

    The last loud piece of `received` (N,) is looked for in `said` (M,), both mono at `rate_hz`. It counts
    content, not time: a receiver that stretches or hurries sound plays more or fewer samples of the same.
    """
    loud = np.flatnonzero(np.abs(received.astype(np.int32)) > LOUD * 32768)
    if not len(loud):
        return None
    end = int(loud[-1]) + 1
    piece = received[max(int(loud[0]), end - int(PIECE_S * rate_hz)) : end].astype(float)
    size = 1 << int(len(said) + len(piece)).bit_length()
    spectrum = np.fft.rfft(said.astype(float), size) * np.conj(np.fft.rfft(piece, size))
    alike = np.fft.irfft(spectrum, size)[: len(said)]
    energy = np.cumsum(np.concatenate([[0.0], said.astype(float) ** 2, np.zeros(len(piece))]))
    there = np.sqrt(energy[len(piece) :][: len(said)] - energy[: len(said)])
    score = alike / (there + np.sqrt(np.square(piece).mean()))
    ends = np.arange(len(said)) + len(piece)
    score[abs(ends - (end - int(loud[0]))) > NEAR_S * rate_hz] = -np.inf  # vowels come again
    return 1000 * min(int(ends[np.argmax(score)]), len(said)) / rate_hz


def _since(at: float | None, begin: float) -> float | None:
    return None if at is None else at - begin


def summary(trials: Sequence[Felt]) -> dict[str, Any]:
    """p50, p95 and worst of each figure, and how often it could be had."""
    found: dict[str, Any] = {"trials": len(trials)}
    for name in asdict(trials[0]) if trials else ():
        values = [v for t in trials if (v := getattr(t, name)) is not None]
        if values:
            p50, p95 = np.percentile(values, [50, 95])
            found[name] = {
                "p50": round(float(p50), 1),
                "p95": round(float(p95), 1),
                "max": round(float(max(values)), 1),
                "of": len(values),
            }
    return found
