"""Who speaks when: begin and end of speech in a line of sound, by its energy. Pure.

Simple on purpose: an assistant that must tell a voice from music brings a detector of its own.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from server.sound.intake import PACKET_SAMPLES, SOUND_RATE_HZ, Pcm48

_PACKETS_S = SOUND_RATE_HZ // PACKET_SAMPLES
FLOOR_PACKETS = 3 * _PACKETS_S  # the quietest packet of so many is the noise
LOUD = 10 ** (-45 / 20)  # of full scale; nothing softer is speech
ABOVE = 4.0  # times the noise (12 dB)
BEGIN_PACKETS = 3  # loud ones in a row
SILENCE_MS = 500  # after so long it has ended


class Turn(NamedTuple):
    """Speech began (`speaking`) or ended at `at_ms` of the line."""

    speaking: bool
    at_ms: int


class TurnDetector:
    """Tells when speech begins and ends.

    Args:
        silence_ms: speech that pauses for so long has ended.

    Law: splitting the sound differently changes nothing.
    """

    def __init__(self, silence_ms: int = SILENCE_MS) -> None:
        self.speaking = False
        self._silence = max(1, round(silence_ms * _PACKETS_S / 1000))
        self._quietest: deque[float] = deque(maxlen=FLOOR_PACKETS)
        self._left = np.zeros(0, np.int16)
        self._run = 0  # packets in a row that speak for a change
        self._at = 0  # packets heard

    def push(self, pcm: Pcm48) -> list[Turn]:
        """Take samples (N,) at 48 kHz; returns what began or ended in them."""
        pcm = np.concatenate([self._left, pcm])
        whole = len(pcm) // PACKET_SAMPLES
        self._left = pcm[whole * PACKET_SAMPLES :]
        packets = pcm[: whole * PACKET_SAMPLES].reshape(whole, PACKET_SAMPLES) / 32768
        turns = []
        for level in np.sqrt(np.mean(packets**2, axis=1)):
            self._at += 1
            if self._changes(float(level)):
                self.speaking = not self.speaking
                before = self._run if self.speaking else 0
                turns.append(Turn(self.speaking, (self._at - before) * 1000 // _PACKETS_S))
                self._run = 0
        return turns

    def _changes(self, level: float) -> bool:
        noise = min(self._quietest, default=0.0)
        self._quietest.append(level)
        loud = level > max(LOUD, ABOVE * noise)
        self._run = self._run + 1 if loud != self.speaking else 0
        return self._run >= (self._silence if self.speaking else BEGIN_PACKETS)


def loudness(pcm: Pcm48) -> float:
    """How loud samples (N,) are, for a level meter: 0 is -60 dB or less, 1 is full scale."""
    if not len(pcm):
        return 0.0
    power = float(np.mean((pcm / 32768) ** 2))
    return min(1.0, max(0.0, 1 + 10 * float(np.log10(max(power, 1e-6))) / 60))
