"""What a mark says, as bits that survive errors: a checksum and a convolutional code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

BITS = 32  # of each of the two ids
_CRC_BITS, _CRC_POLYNOMIAL, _CRC_START = 24, 0x864CFB, 0xB704CE  # CRC-24 of OpenPGP (RFC 9580)
# The code of CDMA2000 and LTE: constraint length 7, three coded bits for each.
_MEMORY, _GENERATORS = 6, (0o133, 0o171, 0o165)
_MESSAGE = 2 * BITS + _CRC_BITS
CODED = len(_GENERATORS) * (_MESSAGE + _MEMORY)  # bits


@dataclass(frozen=True, slots=True)
class Payload:
    """Numbers of 32 bits: which deployment made a picture, in which of its sessions."""

    deployment: int
    session: int

    @classmethod
    def of(cls, deployment: str, session: str) -> Payload:
        """The numbers of names: the first 32 bits of their SHA-256."""
        return cls(number_of(deployment), number_of(session))

    def __str__(self) -> str:
        return f"deployment {self.deployment:08x}, session {self.session:08x}"


def number_of(name: str) -> int:
    """The number that stands for a name in a mark."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[: BITS // 8], "big")


def encode(payload: Payload) -> NDArray[np.int8]:
    """Signs (CODED,) of the coded bits: 1 for a bit that is not set, -1 for one that is."""
    message = payload.deployment << BITS | payload.session
    whole = message << _CRC_BITS | _crc(message)
    state, coded = 0, []
    for place in range(_MESSAGE - 1, -_MEMORY - 1, -1):
        bit = whole >> place & 1 if place >= 0 else 0
        register = bit << _MEMORY | state
        coded += [(register & each).bit_count() & 1 for each in _GENERATORS]
        state = register >> 1
    return (1 - 2 * np.array(coded)).astype(np.int8)


def decode(soft: NDArray[np.float64]) -> Payload | None:
    """The most likely payload behind `soft` (CODED,), signs with their certainty; None: no mark.

    The checksum lets one in 2^24 of what is no mark pass.
    """
    bits = _viterbi(soft.reshape(-1, len(_GENERATORS)))
    whole = int("".join(map(str, bits[:_MESSAGE])), 2)
    message = whole >> _CRC_BITS
    if whole & (1 << _CRC_BITS) - 1 != _crc(message):
        return None
    return Payload(message >> BITS, message & (1 << BITS) - 1)


def _crc(message: int) -> int:
    crc = _CRC_START
    for byte in message.to_bytes(2 * BITS // 8, "big"):
        crc ^= byte << _CRC_BITS - 8
        for _ in range(8):
            crc = (crc << 1) ^ (_CRC_POLYNOMIAL if crc >> _CRC_BITS - 1 & 1 else 0)
            crc &= (1 << _CRC_BITS) - 1
    return crc


def _viterbi(soft: NDArray[np.float64]) -> list[int]:
    """The likeliest bits (S,) behind `soft` (S, 3); the encoder begins and ends in state 0."""
    before, signs = _trellis()
    states = np.arange(1 << _MEMORY)
    metric = np.full(len(states), -np.inf)
    metric[0] = 0.0
    came: list[NDArray[np.int64]] = []
    for values in soft:
        paths = metric[before] + signs @ values
        best = paths.argmax(1)
        metric = paths[states, best]
        came.append(before[states, best])
    state, bits = 0, []
    for origin in reversed(came):
        bits.append(state >> _MEMORY - 1)
        state = int(origin[state])
    return bits[::-1]


@cache
def _trellis() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The two states before each (64, 2), and what is sent on the way from them (64, 2, 3)."""
    states = np.arange(1 << _MEMORY)
    before = (states << 1 & (1 << _MEMORY) - 1)[:, None] | np.array([0, 1])
    register = (states >> _MEMORY - 1)[:, None] << _MEMORY | before
    parity = [
        [[(int(r) & g).bit_count() & 1 for g in _GENERATORS] for r in row] for row in register
    ]
    return before, 1.0 - 2.0 * np.array(parity)
