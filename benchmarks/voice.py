"""A made-up voice: vowels without a pause, so that every moment of it is heard and seen; sound as a file. Pure."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray

PITCH_HZ = 130.0
SYLLABLE_S = 0.24
# First three formants and their bandwidths, Hz: a, i, o, e, u (rounded textbook figures).
VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (570, 840, 2410),
    (530, 1840, 2480),
    (300, 870, 2240),
)
BANDWIDTHS = (80.0, 100.0, 140.0)
LEVEL = 0.35


def voice(seconds: float, rate_hz: int = 48_000) -> NDArray[np.int16]:
    """Vowels one after another, (N,) int16 mono; loud from the first sample to the last."""
    count = int(seconds * rate_hz)
    t = np.arange(count) / rate_hz
    pitch = PITCH_HZ * (1 + 0.06 * np.sin(2 * np.pi * 2.1 * t))
    phase = np.cumsum(pitch) / rate_hz
    place = t / SYLLABLE_S
    first = place.astype(int)
    blend = np.clip((place - first - 0.7) / 0.3, 0, 1)
    table = np.array(VOWELS, float)[np.arange(int(place[-1]) + 2) * 3 % len(VOWELS)]
    formants = table[first] * (1 - blend)[:, None] + table[first + 1] * blend[:, None]
    out = np.zeros(count)
    harmonics = int(4000 / PITCH_HZ)
    for k in range(1, harmonics + 1):
        hz = k * pitch
        gain = sum(
            1 / (1 + ((hz - formants[:, i]) / width) ** 2) / (1 + i)
            for i, width in enumerate(BANDWIDTHS)
        )
        out += (gain + 0.01) / k**0.5 * np.sin(2 * np.pi * k * phase)
    syllable = 0.8 + 0.2 * np.cos(2 * np.pi * place)
    out *= syllable
    return np.asarray(out / np.abs(out).max() * LEVEL * 32767, dtype=np.int16)


def wav(pcm: NDArray[np.int16], rate_hz: int = 48_000) -> bytes:
    """A sound file of mono sound (N,)."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, rate_hz, len(pcm), "NONE", ""))
        file.writeframes(pcm.tobytes())
    return out.getvalue()
