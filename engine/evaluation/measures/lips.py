"""Lips without SyncNet: gap and width against the real lips, how much they close, and on p, b and m."""

from __future__ import annotations

import numpy as np

from engine.config import FPS
from engine.errors import DataError
from engine.evaluation.lip_figures import (
    CLOSED,
    best_lag,
    correlation_at,
    meeting_offset,
    span_minima,
)
from engine.evaluation.measures.clip import Clip
from engine.evaluation.track import FaceTrack
from engine.training.speech.phones import Phone

MEET_MS = 1000 / FPS


def lips_alone(track: FaceTrack, phones: list[Phone] | None) -> dict[str, float]:
    """How much a face's lips close, and on the `phones` that are said."""
    gap = track.lips[:, 0]
    values = {"lip_closed": float((gap[track.found] <= CLOSED).mean())}
    minima = span_minima(gap, phones or [])
    if minima:
        values["closure_pbm"] = float((np.array(minima) <= CLOSED).mean())
        values["n_pbm"] = float(len(minima))
        values["lip_offset_ms"] = meeting_offset(gap, phones or []) * MEET_MS
    return values


def lips_against(track: FaceTrack, real: FaceTrack) -> dict[str, float]:
    """How a face's lips follow the real ones: at the best lag of the gap, positive when they are later."""
    length = min(len(track.found), len(real.found))
    (ours, wide), (theirs, theirs_wide) = (t.lips[:length].T for t in (track, real))
    lag, r = best_lag(theirs, ours)
    spread = float(theirs.std())
    return {
        "lip_gap_r": r,
        "lip_gap_lag_ms": lag * MEET_MS,
        "lip_width_r": correlation_at(theirs_wide, wide, lag),
        "lip_gap_spread": float(ours.std()) / spread if spread > 0 else float("nan"),
        "lip_closed_real": float((theirs <= CLOSED).mean()),
    }


def phones_said(clip: Clip) -> tuple[list[Phone] | None, str | None]:
    """Phones of the words of `clip` by forced alignment; or None, and why not."""
    if clip.sound is None or not clip.words:
        return None, "p, b, m: not run, " + (
            "no words given" if clip.sound is not None else "no sound"
        )
    from engine.evaluation.alignment import Aligner
    from engine.training.speech.espeak import Espeak

    try:
        return Aligner(Espeak().ipa).align(clip.sound, clip.words), None
    except (DataError, ImportError) as error:
        return None, f"p, b, m: not run, {error}"
