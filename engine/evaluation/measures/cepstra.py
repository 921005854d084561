"""Mel-frequency cepstra as SyncNet was trained on: 13 at 100 Hz, of samples as 16-bit numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

RATE, WINDOW, STEP, SIZE = 16_000, 400, 160, 512
FILTERS, COUNT, LIFTER, EMPHASIS = 26, 13, 22, 0.97


def cepstra(pcm: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sound (N,) at 16 kHz in [-1, 1] -> (T, 13); the first is the log of the energy."""
    samples = np.round(np.clip(pcm, -1, 1) * 32767).astype(np.float64)
    flat = np.append(samples[:1], samples[1:] - EMPHASIS * samples[:-1])
    count = 1 + max(0, -(-(len(flat) - WINDOW) // STEP))
    flat = np.pad(flat, (0, max(0, (count - 1) * STEP + WINDOW - len(flat))))
    frames = np.lib.stride_tricks.sliding_window_view(flat, WINDOW)[::STEP][:count]
    power = np.square(np.abs(np.fft.rfft(frames, SIZE))) / SIZE
    tiny = np.finfo(float).eps
    energy = np.maximum(power.sum(1), tiny)
    bands = np.log(np.maximum(power @ _filters().T, tiny))
    found = dct(bands, type=2, axis=1, norm="ortho")[:, :COUNT]
    found *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COUNT) / LIFTER)
    found[:, 0] = np.log(energy)
    return np.asarray(found)


def _filters() -> NDArray[np.float64]:
    """Triangles (26, 257) that are even on the mel scale from 0 to 8 kHz."""
    mels = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), FILTERS + 2)
    edges = np.floor((SIZE + 1) * 700 * (10 ** (mels / 2595) - 1) / RATE)[:, None]
    bins = np.arange(SIZE // 2 + 1)
    rise = (bins - edges[:-2]) / np.maximum(edges[1:-1] - edges[:-2], 1)
    fall = (edges[2:] - bins) / np.maximum(edges[2:] - edges[1:-1], 1)
    inside = (bins >= edges[:-2]) & (bins < edges[2:])
    return np.where(inside, np.where(bins < edges[1:-1], rise, fall), 0.0)
