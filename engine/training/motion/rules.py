"""Phones with their times -> mouth coefficients, by rule: dominance blending and true closures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.motion.channels import CHANNELS
from engine.training.speech.phones import (
    BILABIAL,
    DIPHTHONGS,
    FIRST_VOWEL,
    LABIODENTAL,
    VISEMES,
    VOWELS,
    Phone,
)

F32 = NDArray[np.float32]

_AT = {name: i for i, name in enumerate(CHANNELS)}
_CLOSERS = [_AT[n] for n in ("mouthPress", "mouthRollLower", "mouthRollUpper", "mouthClose")]
_OPENERS = [
    _AT[n]
    for n in (
        "jawOpen",
        "mouthLowerDown",
        "mouthUpperUp",
        "mouthStretch",
        "mouthSmile",
        "tongueOut",
    )
]
_ROUND = [_AT["mouthFunnel"], _AT["mouthPucker"]]
RATE_HZ = 100  # grid of the rules; the answer is asked for at `rate`

# Between words and in short pauses real lips rest apart; in a longer silence they close.
REST = {"jawOpen": 0.04, "mouthLowerDown": 0.09, "mouthUpperUp": 0.07}
RESTS, CLOSED = 0.6, 1.2  # s of silence after which lips begin to close, and have closed


def mouth(phones: Sequence[Phone], pcm: F32, rate: int = 50) -> F32:
    """Mouth coefficients of a spoken sentence.

    Args:
        phones: what is said and when, in order.
        pcm: its sound (N,) at 16 kHz; vowels open the jaw by their loudness.
        rate: frames a second of the answer; frame k is the value at time (k + 1/2) / rate.

    Returns:
        (N * rate // 16000, channels) float32.
    """
    steps = int(np.ceil(len(pcm) / 16_000 * RATE_HZ)) + 1
    time = (np.arange(steps) + 0.5) / RATE_HZ
    phones = _split_diphthongs(_merge_silence(phones))
    track = _smooth(_blend(phones, _vowel_gain(phones, pcm), time), 0.02)
    _close(track, phones, time)
    track = _smooth(track, 0.008)
    out = len(pcm) * rate // 16_000
    when = (np.arange(out) + 0.5) / rate
    return np.stack([np.interp(when, time, c) for c in track.T], 1).astype(np.float32)


def _merge_silence(phones: Sequence[Phone], shortest: float = 0.15) -> list[Phone]:
    """Give a gap between words that is too short to rest in to its neighbour."""
    out: list[Phone] = []
    for phone in phones:
        if (
            phone.name == "sil"
            and out
            and phone.end - phone.start < shortest
            and out[-1].name != "sil"
        ):
            out[-1] = Phone(out[-1].name, out[-1].start, phone.end)
        elif phone.name == "sil" and out and out[-1].name == "sil":
            out[-1] = Phone("sil", out[-1].start, phone.end)
        else:
            out.append(phone)
    return out


def _split_diphthongs(phones: Sequence[Phone]) -> list[Phone]:
    out: list[Phone] = []
    for p in phones:
        if p.name not in DIPHTHONGS:
            out.append(p)
            continue
        first, second = DIPHTHONGS[p.name]
        turn = p.start + FIRST_VOWEL * (p.end - p.start)
        out += [Phone(first, p.start, turn), Phone(second, turn, p.end)]
    return out


def _vowel_gain(phones: Sequence[Phone], pcm: F32) -> list[float]:
    rms = []
    for p in phones:
        piece = pcm[int(max(p.start, 0) * 16_000) : int(max(p.end, 0) * 16_000)]
        rms.append(float(np.sqrt(np.mean(piece**2))) if len(piece) else 0.0)
    loud = [r for p, r in zip(phones, rms, strict=True) if p.name in VOWELS]
    usual = float(np.median(loud)) if loud else 1.0
    gain = [float(np.clip((r / (usual + 1e-6)) ** 0.7, 0.45, 1.7)) for r in rms]
    return [g if p.name in VOWELS else 1.0 for p, g in zip(phones, gain, strict=True)]


def _strength(name: str) -> F32:
    """How much a phone insists on its value, by channel."""
    strength = np.full(len(CHANNELS), 0.35, np.float32)
    if name == "sil":
        strength[:] = 1.2
    elif name in VOWELS:
        strength[:] = 1.0
    elif name in BILABIAL or name in LABIODENTAL:
        strength[_OPENERS] = 1.0
        strength[_ROUND] = 0.15
    elif name in ("W", "R"):
        strength[_ROUND] = 2.0
    elif name in ("SH", "ZH", "CH", "JH"):
        strength[_ROUND] = 1.2
    elif name in ("S", "Z", "T", "D", "N", "L", "TH", "DH"):
        strength[_AT["jawOpen"]] = 0.7
        strength[_ROUND] = 0.2
    else:
        strength[_ROUND] = 0.15
    return strength


def _blend(phones: Sequence[Phone], gains: Sequence[float], time: NDArray[np.float64]) -> F32:
    above = np.zeros((len(time), len(CHANNELS)))
    below = np.full((len(time), len(CHANNELS)), 1e-4)
    for number, (phone, gain) in enumerate(zip(phones, gains, strict=True)):
        target: NDArray[np.float64] = np.zeros(len(CHANNELS))
        for name, value in VISEMES[phone.name].items():
            target[_AT[name]] = value
        target[[_AT["jawOpen"], _AT["mouthLowerDown"], _AT["mouthUpperUp"]]] *= gain
        target[_CLOSERS] *= phone.name not in BILABIAL | LABIODENTAL  # `_close` sets them
        half = max(phone.end - phone.start, 0.02) / 2
        if phone.name == "sil":  # rests from 60 ms after the last sound to 60 ms before the next
            half = max(half - 0.06, 0.02)
            if number:
                target = _at_rest(time - phone.start)
        distance = np.maximum(np.abs(time - (phone.start + phone.end) / 2) - half * 0.5, 0)
        early = time < (phone.start + phone.end) / 2
        reach = np.where(early, 0.055, 0.065)  # s; rounding is felt about 120 ms before
        weight = np.exp(-((distance / reach) ** 1.2))[:, None] * _strength(phone.name)
        above += weight * target
        below += weight
    return (above / below).astype(np.float32)


def _at_rest(silent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the mouth rests (T, channels) after `silent` (T,) seconds of silence."""
    rest = np.zeros(len(CHANNELS))
    for name, value in REST.items():
        rest[_AT[name]] = value
    return np.clip((CLOSED - silent) / (CLOSED - RESTS), 0, 1)[:, None] * rest


def _close(track: F32, phones: Sequence[Phone], time: NDArray[np.float64]) -> None:
    """Make lips meet on p, b, m and the lower lip meet the teeth on f, v, whatever surrounds."""
    for phone in phones:
        if phone.name not in BILABIAL | LABIODENTAL:
            continue
        middle = (phone.start + phone.end) / 2 - 0.005
        half = float(np.clip(phone.end - phone.start, 0.06, 0.11)) / 2
        shut = np.clip(1 - (np.abs(time - middle) - half) / 0.04, 0, 1).astype(np.float32)
        target = VISEMES[phone.name]
        lips = phone.name in BILABIAL
        for i in _OPENERS:
            wanted = (
                target.get(CHANNELS[i], 0.0) if not lips else (0.02 if i == _AT["jawOpen"] else 0)
            )
            track[:, i] += shut * (wanted - track[:, i])
        track[:, _ROUND] *= 1 - (0.25 if lips else 0.5) * shut[:, None]
        for i in _CLOSERS:
            track[:, i] = np.maximum(track[:, i], shut * target.get(CHANNELS[i], 0.0))


def _smooth(track: F32, sigma: float) -> F32:
    half = int(np.ceil(3 * sigma * RATE_HZ))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / (sigma * RATE_HZ)) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(track, ((half, half), (0, 0)), mode="edge")
    return np.stack([np.convolve(c, kernel, "valid") for c in padded.T], 1).astype(np.float32)
