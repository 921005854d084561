"""Voice activity detection (VAD): keeps hum, hiss and fans from moving the mouth.

Speech stands out from background noise; a hum, a fan or a hiss is that noise. So each
band of the log-mel spectrum has a floor, the lowest it was in the last seconds, and the detector opens
by how far the bands above the mains stand over their floors. It opens before the frame in which
speech begins (the look-ahead covers it) and closes slowly, so that pauses within a sentence are
left to the network. Noise that begins is let through until its floor is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
MELS = 40  # the last columns of a feature frame
FIRST = 4  # band from which a mains hum and its strong harmonics are left out, about 270 Hz
MEMORY = 125  # hops a floor is looked for in, 5 s
SMOOTH = 0.25  # share of a new hop in the level whose lowest value is the floor
SHUT, OPEN = 0.20, 0.35  # mean height over the floors, in units of the spectrum (17 dB)
RELEASE = 0.94  # what is left of the opening a hop later, in silence


@dataclass(slots=True)
class VoiceActivityState:
    """What one stream remembers."""

    levels: F32  # (MEMORY, bands) smoothed levels, a ring
    next: int
    level: F32  # (bands,) smoothed
    opening: float


class VoiceActivityDetector:
    """Opens for speech.

    Args:
        silence: features of silence (2, width), what every stream begins with.

    Law:
        The opening depends on the hops before and on this one, however they were cut.
    """

    def __init__(self, silence: F32) -> None:
        self._silence = _bands(silence)

    def start(self) -> VoiceActivityState:
        """State of a new stream: shut, as if it had been silent for a while."""
        levels = np.tile(self._silence, (MEMORY, 1))
        return VoiceActivityState(levels, 0, self._silence.copy(), 0.0)

    def step(self, state: VoiceActivityState, pair: F32) -> float:
        """Take one hop, features (2, width), and return how far it is open, in [0, 1]."""
        bands = _bands(pair)
        state.level = state.level + np.float32(SMOOTH) * (bands - state.level)
        state.levels[state.next] = state.level
        state.next = (state.next + 1) % MEMORY
        over = float(np.maximum(bands - state.levels.min(0), 0).mean())
        wanted = min(max((over - SHUT) / (OPEN - SHUT), 0.0), 1.0)
        state.opening = max(wanted, state.opening * RELEASE)
        return state.opening


def _bands(pair: F32) -> F32:
    return np.asarray(pair[:, -MELS + FIRST :].mean(0), np.float32)
