"""What a talk loses on its way to the audio-lip expert: another microphone and room, and lips read badly.

Rules move lips at exactly the phone's time and to its full width; people do not, and a landmark net that reads
them from a film adds errors as large as the movement in some distances, most of them as the head moves. A net
that never saw such errors leans on what only drawn lips have.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.nets.sync_expert import GAPS, LIPS

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def roughened(spectrum: F32, shapes: F32, rng: np.random.RandomState) -> tuple[F32, F32]:
    """Spectra (T, 80) of another microphone, room and voice; shapes (T, 8) as people move and nets read them."""
    return heard_elsewhere(spectrum, rng), misread(shapes, rng)


def heard_elsewhere(spectrum: F32, rng: np.random.RandomState) -> F32:
    """Spectra (T, 80) of a higher or lower voice, with a tilt, a floor of noise and some echo."""
    half = spectrum.shape[1] // 2
    bands = np.arange(half) + rng.uniform(-2.5, 2.5)
    mels = spectrum.reshape(len(spectrum), 2, half)
    low = np.clip(np.floor(bands).astype(int), 0, half - 2)
    share = np.clip(bands - low, 0, 1)
    mels = mels[..., low] * (1 - share) + mels[..., low + 1] * share
    tilt = np.convolve(rng.standard_normal(half + 8), np.ones(9) / 3, "valid") * 0.25
    floor = rng.uniform(-1.2, -0.2) + 0.05 * rng.standard_normal(mels.shape)
    mels = np.logaddexp(mels * 4, floor * 4 - 2) / 4 * rng.uniform(0.8, 1.2) + tilt
    told = mels.reshape(spectrum.shape)
    if rng.rand() < 0.5:  # an echo never comes before the sound
        late = np.concatenate([told[:1], told[:-1]])
        told = np.logaddexp(told * 4, (late - rng.uniform(0.1, 0.6)) * 4) / 4
    return told.astype(np.float32)


def misread(shapes: F32, rng: np.random.RandomState) -> F32:
    """Shapes (T, 8) of a person who is a little early here and late there, read with noise, blur and drift."""
    count = len(shapes)
    moved = shapes.astype(np.float64)
    # No reading shows lips as shut as they are.
    moved[:, :GAPS] = np.log(np.exp(moved[:, :GAPS]) + rng.uniform(0, 0.05))
    moved = at_times(
        moved, np.arange(count) + rng.uniform(0, 0.8) * wander(rng, count, 1, 12)[:, 0]
    )
    spread = moved.std(0) + 1e-4
    middle = moved.mean(0)
    size = rng.uniform(0.5, 1.2, LIPS) * (1 + rng.uniform(0, 0.3) * wander(rng, count, 1, 25))
    drift = wander(rng, count, LIPS, 40) * rng.uniform(0, 1.0, LIPS)
    errors = wander(rng, count, LIPS, 5) * rng.uniform(0, 0.8, LIPS)
    head = wander(rng, count, 1, 10) * rng.standard_normal(LIPS) * rng.uniform(0, 0.8)
    noise = rng.standard_normal(moved.shape) * rng.uniform(0.05, 0.8, LIPS)
    read = middle + (moved - middle) * size + spread * (drift + errors + head + noise)
    if rng.rand() < 0.5:
        read = np.stack([np.convolve(c, [0.25, 0.5, 0.25], "same") for c in read.T], 1)
    return read.astype(np.float32)


def at_times(values: F64, times: F64) -> F64:
    """Values (T, C) at such times (T,) in frames, by straight lines between frames."""
    times = np.clip(times, 0, len(values) - 1)
    return np.stack([np.interp(times, np.arange(len(values)), c) for c in values.T], 1)


def wander(rng: np.random.RandomState, count: int, channels: int, width: int) -> F64:
    """Noise of standard deviation 1 that changes within about `width` frames: (T, C)."""
    window = np.hanning(2 * width + 1)[1:-1]
    window /= np.linalg.norm(window)
    white = rng.standard_normal((count + len(window) - 1, channels))
    return np.stack([np.convolve(c, window, "valid") for c in white.T], 1)
