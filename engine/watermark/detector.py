"""Reads a mark out of pictures of which nothing is known: neither scale nor place.

A picture whose scale is right has the pilot's waves in phase with the key somewhere; all scales from
half to double are tried, and all places at once by an inverse transform. Whether there is a mark is
decided by its checksum alone, so that what pictures look like cannot make more false alarms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.watermark.keys import PUBLIC_KEY
from engine.watermark.payload import CODED, Payload, decode
from engine.watermark.tile import HIGHEST, SIDE, square_of, strengths, waves_of

SMALLEST, LARGEST, STEP = 0.48, 2.1, 0.006  # scales that are tried, and the ratio between two
_FINE = 0.0005
_TRIED = 8  # likeliest scales that are read; each lets one in 2^24 false alarms pass
_LIKELY = 5.0  # standard deviations of the pilot's peak
_AROUND = 6  # pixels to each side that a pixel is compared with
_FLOOR = 16.0  # added to the variance there

Plane = NDArray[np.float32]
Amplitudes = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class Found:
    """A mark that was read; `certainty` is the pilot's peak in standard deviations."""

    payload: Payload
    key: str
    scale: float
    certainty: float


@dataclass(frozen=True, slots=True)
class _Peak:
    certainty: float
    scale: float
    key: str
    values: Amplitudes  # (K,) brought into phase


def flattened(luma: NDArray[np.uint8]) -> Plane:
    """What a picture (H, W) has beside its surroundings, weak where much is going on."""
    plane = luma.astype(np.float32)
    rest = plane - _mean_around(plane)
    return rest / (_mean_around(rest * rest) + np.float32(_FLOOR))


def find_mark(
    flat: Plane, keys: Sequence[str] = (PUBLIC_KEY,), scale: float | None = None
) -> Found | None:
    """Read the mark in the sum (H, W) of flattened pictures; None: there is none.

    Args:
        scale: of the picture against the marked one, if it is known.
    """
    if scale is not None:
        return _read(_peaks(flat, keys, [scale]))
    if (found := find_mark(flat, keys, 1.0)) is not None:
        return found
    count = int(np.log(LARGEST / SMALLEST) / STEP) + 1
    peaks = _peaks(flat, keys, SMALLEST * np.exp(STEP * np.arange(count)))
    likely = [p for p in sorted(peaks, key=_certainty, reverse=True) if p.certainty > _LIKELY]
    steps = 1 + np.arange(-STEP / 2, STEP / 2, _FINE)
    finer = (max(_peaks(flat, [p.key], p.scale * steps), key=_certainty) for p in likely[:_TRIED])
    return _read(finer)


def _certainty(peak: _Peak) -> float:
    return peak.certainty


def _peaks(
    flat: Plane, keys: Sequence[str], scales: Sequence[float] | NDArray[np.float64]
) -> list[_Peak]:
    """Where the pilots of `keys` are likeliest at each scale."""
    found = []
    for scale in map(float, scales):
        plane = _amplitudes(flat, scale)
        found += [_look(plane, key, scale) for key in keys]
    return found


def _read(peaks: Iterable[_Peak]) -> Found | None:
    """The first peak that carries a payload."""
    for peak in peaks:
        waves = waves_of(peak.key)
        data = ~waves.pilot
        soft = np.bincount(waves.bits[data], peak.values.real[data], CODED).astype(np.float64)
        if (payload := decode(soft)) is not None:
            return Found(payload, peak.key, peak.scale, peak.certainty)
    return None


def _look(plane: Amplitudes, key: str, scale: float) -> _Peak:
    """Where the pilot of `key` is likeliest, in amplitudes (2 HIGHEST + 1, HIGHEST + 1)."""
    waves = waves_of(key)
    values = plane[waves.down + HIGHEST, waves.across]
    ring = waves.radius.astype(int)
    power = np.bincount(ring, np.abs(values) ** 2) / np.maximum(np.bincount(ring), 1)
    values = values * waves.phases.conj() * strengths(waves) / np.sqrt(power[ring] + 1e-20)
    peaks = square_of(waves, np.where(waves.pilot, values, 0))
    down, across = np.unravel_index(int(peaks.argmax()), peaks.shape)
    turned = np.exp(2j * np.pi / SIDE * (waves.down * down + waves.across * across))
    certainty = peaks.max() / (peaks.std() + 1e-20)
    return _Peak(float(certainty), scale, key, values * turned)


def _amplitudes(flat: Plane, scale: float) -> Amplitudes:
    """Complex amplitudes of all waves in (H, W), (2 HIGHEST + 1, HIGHEST + 1)."""
    height, width = flat.shape
    step = 2 * np.pi / (SIDE * scale)
    across = step * np.arange(width)[:, None] * np.arange(HIGHEST + 1)
    down = step * np.arange(-HIGHEST, HIGHEST + 1)[:, None] * np.arange(height)
    real = flat @ np.hstack([np.cos(across), -np.sin(across)]).astype(np.float32)
    lines = real[:, : HIGHEST + 1] + 1j * real[:, HIGHEST + 1 :]
    return np.asarray(np.exp(-1j * down) @ lines)


def _mean_around(plane: Plane) -> Plane:
    """The mean of the square around each pixel of (H, W)."""
    for _ in range(2):
        count = len(plane)
        sums = np.vstack([np.zeros_like(plane[:1]), np.cumsum(plane, 0, np.float64)])
        ends = np.minimum(np.arange(count) + _AROUND + 1, count)
        begins = np.maximum(np.arange(count) - _AROUND, 0)
        means = (sums[ends] - sums[begins]) / (ends - begins)[:, None]
        plane = np.ascontiguousarray(means.T, np.float32)
    return plane
