"""The pattern of a mark: a small square that is repeated over the picture, made of chosen waves.

Every wave of the square within a ring of frequencies carries one sign. A quarter of them, whose signs
the key alone decides, are the pilot that shows scale and place; the others carry the coded bits, each
by several waves. Without the key their phases are noise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.watermark.payload import CODED, Payload, encode

SIDE = 128  # pixels
LOWEST, HIGHEST = 7, 28  # waves a side: periods of 18 to 4.6 pixels, which coders keep
_PILOT = 4  # every fourth wave


@dataclass(frozen=True, slots=True)
class Waves:
    """The waves of a key: how many a side downwards and across, and the phase of each; all (K,).

    `bits` (K,) is the coded bit that a wave carries; -1: it is one of the pilot.
    """

    down: NDArray[np.int64]  # -HIGHEST to HIGHEST
    across: NDArray[np.int64]  # 0 to HIGHEST
    phases: NDArray[np.complex128]
    bits: NDArray[np.int64]

    @property
    def pilot(self) -> NDArray[np.bool_]:
        """Which of them are the pilot, (K,)."""
        return self.bits < 0

    @property
    def radius(self) -> NDArray[np.float64]:
        """Waves a side along their own direction, (K,)."""
        return np.hypot(self.down, self.across)


@lru_cache(maxsize=16)
def waves_of(key: str) -> Waves:
    """The waves of `key`."""
    down, across = np.mgrid[-HIGHEST : HIGHEST + 1, 0 : HIGHEST + 1]
    radius = np.hypot(down, across)
    half = (across > 0) | (down > 0)  # the other half of the plane is the same again
    ring = half & (radius >= LOWEST) & (radius <= HIGHEST)
    seed = hashlib.sha256(b"portraittalk mark 1\0" + key.encode()).digest()
    dice = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "big")))
    order = dice.permutation(int(ring.sum()))
    phases = np.exp(2j * np.pi * dice.random(len(order)))
    bits = np.full(len(order), -1)
    carriers = np.arange(len(order)) % _PILOT != 0
    bits[carriers] = np.arange(carriers.sum()) % CODED
    return Waves(down[ring][order], across[ring][order], phases, bits)


def make_tile(key: str, payload: Payload) -> NDArray[np.float64]:
    """One square (128, 128) of the pattern, with a mean square of 1."""
    waves = waves_of(key)
    signs = np.where(waves.pilot, 1, encode(payload)[waves.bits])
    square = square_of(waves, signs * strengths(waves) * waves.phases)
    return np.asarray(square / square.std(), np.float64)


def strengths(waves: Waves) -> NDArray[np.float64]:
    """How strong each wave (K,) is: a little more where they are long and survive coding."""
    return np.asarray(waves.radius**-0.5, np.float64)


def square_of(waves: Waves, values: NDArray[np.complex128]) -> NDArray[np.float64]:
    """The square (SIDE, SIDE) in which waves have these complex amplitudes (K,)."""
    plane = np.zeros((SIDE, SIDE // 2 + 1), np.complex128)
    plane[waves.down % SIDE, waves.across] = values
    return np.asarray(np.fft.irfft2(plane, (SIDE, SIDE)), np.float64)
