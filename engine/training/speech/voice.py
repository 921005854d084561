"""What every synthetic voice gives: sound at 16 kHz, and when each phone begins and ends.

`espeak-ng` and `flite` come from Debian, Piper and Kokoro from the package registries. Nothing here
is needed at run time.
"""

from __future__ import annotations

import random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from engine.training.speech.phones import Phone

F32 = NDArray[np.float32]
RATE = 16_000


class Voice(Protocol):
    """A text-to-speech engine."""

    def say(self, rng: random.Random) -> tuple[F32, list[Phone]]:
        """Speak one random sentence: sound (N,) at 16 kHz in [-1, 1] and its phones."""


def to_rate(sound: F32, rate: int) -> F32:
    """Sound (N,) at `rate` Hz -> (M,) at 16 kHz."""
    if rate == RATE:
        return sound.astype(np.float32)
    common = np.gcd(rate, RATE)
    return np.asarray(resample_poly(sound, RATE // common, rate // common), np.float32)
