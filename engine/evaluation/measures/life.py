"""Blinks and the motion of the head, beside what is usual in people who talk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.config import FPS
from engine.evaluation.head_figures import smooth
from engine.evaluation.measures.columns import COLUMNS
from engine.evaluation.track import FaceTrack

F32 = NDArray[np.float32]
DEPTH = 0.25  # of the lids' score over its usual value, from which it is a blink
COUNTED_S = 20.0  # people who blink ten times a minute may not blink in less
LONGEST = 15  # frames; longer closed is no blink
# People who talk to somebody. Blinks: 26 a minute in conversation, most people 10 to 40 (Bentivoglio et
# al. 1997), 100 to 250 ms at half depth. Head: a filmed speech, 2.4, 4.5 and 4.1
# degrees of yaw, pitch and roll and 16 degrees a second, each halved and doubled.
USUAL = {
    "blink_rate": (10.0, 40.0),
    "blink_ms": (80.0, 300.0),
    "head_std": (3.0, 13.0),
    "head_speed": (8.0, 32.0),
}


def blinks(lids: F32) -> list[tuple[int, int]]:
    """First frame and one past the last of each blink, at half depth, of how far lids are shut (T,)."""
    usual = float(np.median(lids))
    raised = lids - usual
    found: list[tuple[int, int]] = []
    edges = np.diff(np.r_[0, (raised > DEPTH / 2).astype(int), 0])
    for first, last in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True):
        peak = float(raised[first:last].max())
        if peak < DEPTH or last - first > LONGEST:
            continue
        half = np.flatnonzero(raised[first:last] >= peak / 2)
        found.append((int(first + half[0]), int(first + half[-1] + 1)))
    return found


def life(track: FaceTrack) -> dict[str, float]:
    """Blinks a minute and their median length; spread and speed of the head's three angles together."""
    found = blinks(track.lids)
    values = {"blink_rate": len(found) / (len(track.lids) / FPS / 60)}
    if found:
        values["blink_ms"] = float(np.median([b - a for a, b in found])) * 1000 / FPS
    values["head_std"] = float(np.sqrt(track.angles.var(0).sum()))
    if len(track.angles) >= 9:
        speed = np.gradient(smooth(track.angles), axis=0) * FPS
        values["head_speed"] = float(np.sqrt(np.square(speed).sum(1).mean()))
    return values


def unusual(values: dict[str, float], seconds: float) -> list[str]:
    """What is outside of what people do in so many seconds, in words."""
    return [
        f"{COLUMNS[name].title} {values[name]:.3g} {COLUMNS[name].unit}: outside of what talking people do "
        f"({low:.0f} to {high:.0f})"
        for name, (low, high) in USUAL.items()
        if name in values
        and not low <= values[name] <= high
        and (name != "blink_rate" or seconds >= COUNTED_S)
    ]
