"""Makes clean speech sound like live microphones, and cuts it into training pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from engine.nets.speech_stem import PAST
from engine.training.motion.dataset import Clip

F32 = NDArray[np.float32]
RATE, STRIDE = 16_000, 320


@dataclass(slots=True)
class Piece:
    """A cut-out of T frames: `pcm` (PAST + 320 T), labels (T, ...) and whether each is known."""

    pcm: F32
    phone: NDArray[np.int8]  # -1: not known
    mouth: F32
    columns: F32  # (T, 28), zeros when not known
    teacher: F32  # (T, width), zeros when not known
    real: bool
    taught: bool


def cut(clip: Clip, frames: int, rng: np.random.RandomState, width: int) -> Piece:
    """A random cut of `frames`, played faster or slower (and so higher or lower) by up to 15 %.

    Short clips are padded with silence on both sides, at random.
    """
    speed = float(np.exp(rng.uniform(-0.15, 0.15)))
    need = int(np.ceil(frames * speed)) + 2
    have = len(clip.mouth)
    first = rng.randint(min(-8, have - need), max(1, have - need + 9))
    when = first + (np.arange(frames) + 0.5) * speed - 0.5  # source frame of each new frame
    inside = (when >= 0) & (when <= have - 1)
    near = np.clip(np.rint(when), 0, have - 1).astype(int)
    sample = first * STRIDE + np.arange(-PAST, frames * STRIDE) * speed
    pcm = np.interp(sample, np.arange(len(clip.pcm)), clip.pcm, left=0, right=0)
    phone = np.where(inside, clip.phone[near], -1 if clip.real else 0)
    mask = inside[:, None]
    return Piece(
        pcm.astype(np.float32),
        phone.astype(np.int8),
        clip.mouth[near] * mask,
        clip.columns[near] * mask if clip.real else np.zeros((frames, 28), np.float32),
        clip.teacher[near] * mask if clip.teacher.size else np.zeros((frames, width), np.float32),
        clip.real,
        bool(clip.teacher.size),
    )


def roughen(pcm: F32, rng: np.random.RandomState, babble: F32 | None = None) -> F32:
    """Room, microphone, line and noise of a live call, at a level of -45 to -12 dB.

    Args:
        pcm: clean speech (N,).
        babble: other sound (N,) to lay under it now and then.
    """
    n = len(pcm)
    size = next_fast_len(n + RATE // 2, real=True)  # room for the longest echo
    spectrum = rfft(pcm, size)
    frequency = np.linspace(0, RATE / 2, len(spectrum), dtype=np.float32)
    spectrum = spectrum * _microphone(frequency, rng)
    if rng.rand() < 0.35:
        spectrum = spectrum * _room(size, rng)
    out = irfft(spectrum, size)[:n]
    loudness = np.sqrt(np.mean(out**2)) + 1e-6
    if rng.rand() < 0.7:
        snr = rng.uniform(3, 35)
        out = out + _noise(n, rng) * loudness * 10 ** (-snr / 20)
    if babble is not None and rng.rand() < 0.15:
        scale = np.sqrt(np.mean(babble**2)) + 1e-6
        out = out + babble * (loudness / scale * 10 ** (-rng.uniform(12, 25) / 20))
    level = 10 ** (rng.uniform(-42, -14) / 20)
    out = out * (level / max(loudness, 1e-4))
    out = out + rng.randn(n) * 10 ** (rng.uniform(-90, -60) / 20)
    if rng.rand() < 0.1:  # a telephone line's coarse steps
        out = np.sign(out) * np.expm1(np.round(np.log1p(255 * np.abs(out)) * 23) / 23) / 255
    return np.clip(out, -1, 1).astype(np.float32)


def noise_only(frames: int, rng: np.random.RandomState) -> F32:
    """Sound without speech (N,) at 16 kHz, N = PAST + 320 * frames.

    Hum, hiss, slow swells, knocks, or almost nothing.
    """
    n = PAST + frames * STRIDE
    level = 10 ** (rng.uniform(-80, -22) / 20)
    slow = np.interp(np.arange(n), np.linspace(0, n, 6), rng.uniform(0.05, 1, 6))
    out = _noise(n, rng) * slow
    if rng.rand() < 0.4:
        hum = rng.choice([50, 60, 100, 120, 180])
        time = np.arange(n) / RATE
        out = out + sum(rng.rand() * np.sin(2 * np.pi * hum * k * time) for k in (1, 2, 3))
    if rng.rand() < 0.3:
        for at in rng.randint(0, n - 400, rng.randint(1, 5)):
            out[at : at + 400] += rng.randn(400) * np.exp(-np.arange(400) / 60) * rng.uniform(1, 6)
    return np.clip(out * level, -1, 1).astype(np.float32)


def _noise(n: int, rng: np.random.RandomState) -> F32:
    """Noise of unit level whose spectrum falls by a random power of frequency."""
    size = next_fast_len(n, real=True)
    shape = rfft(rng.standard_normal(size).astype(np.float32))
    slope = np.maximum(np.arange(len(shape), dtype=np.float32), 20) ** np.float32(
        -rng.uniform(0, 1.1)
    )
    out = irfft(shape * slope, size)[:n]
    return out / (np.sqrt(np.mean(out**2)) + 1e-9)


def _microphone(frequency: F32, rng: np.random.RandomState) -> F32:
    knots = np.array([0, 200, 500, 1000, 2000, 4000, 8000])
    gain = 10 ** (np.interp(frequency, knots, rng.uniform(-6, 6, len(knots))) / 20)
    if rng.rand() < 0.3:
        gain = gain / (1 + (frequency / rng.uniform(3000, 7500)) ** 12)
    if rng.rand() < 0.4:
        edge = rng.uniform(60, 300)
        gain = gain * (frequency / edge) ** 4 / (1 + (frequency / edge) ** 4)
    return np.asarray(gain, np.float32)


def _room(size: int, rng: np.random.RandomState) -> NDArray[np.complex64]:
    length = int(RATE * rng.uniform(0.1, 0.5))
    tail = rng.randn(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= rng.uniform(0.1, 0.6) / (np.sqrt(np.sum(tail**2)) + 1e-9)
    tail[0] = 1.0
    return np.asarray(rfft(tail.astype(np.float32), size))
