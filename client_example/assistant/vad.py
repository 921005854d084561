"""When does somebody speak? By energy alone: pure, no clock, no sound card.

A frame of 20 ms is loud when it is well above the noise floor, which follows the quietest of what is heard.
Speech begins with a few loud frames, and ends when all frames have been quiet for a while.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

RATE_HZ = 16_000
FRAME_MS = 20
FRAME_BYTES = RATE_HZ * FRAME_MS // 1000 * 2
LOWEST_DB, HIGHEST_DB = -70.0, -35.0  # of full scale: between these the noise floor is looked for
RISE_DB = 0.06  # a frame that the floor may rise: 3 dB a second
RISE_SPEAKING_DB = 0.01  # while somebody speaks, it is hardly noise that is heard
ON_DB, OFF_DB = 14.0, 8.0  # above the floor: loud enough to begin, and to go on
QUIETEST_SPEECH_DB = -48.0
BEGIN_FRAMES = 3  # loud ones of the last four
OVER_SPEECH_DB = 6.0  # further, while the assistant itself speaks: it may leak into the microphone
OVER_SPEECH_FRAMES = 5  # loud ones of the last six
END_MS = 600
PRE_ROLL_MS = 300
LONGEST_S = 30.0


@dataclass(frozen=True, slots=True)
class Began:
    """Somebody began to speak."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn is over: all of its sound as PCM16 at 16 kHz, what was said before it was noticed too."""

    sound: bytes

    @property
    def seconds(self) -> float:
        """How long the turn was, its closing silence left out."""
        return max(0.0, len(self.sound) / 2 / RATE_HZ - (PRE_ROLL_MS + END_MS) / 1000)


class VoiceDetector:
    """Turns of speech in a stream of PCM16 at 16 kHz, however it is cut."""

    def __init__(self) -> None:
        self.speaking = False
        self.floor_db = -55.0
        self._left = b""
        self._loud: deque[bool] = deque(maxlen=OVER_SPEECH_FRAMES + 1)
        self._before: deque[bytes] = deque(maxlen=PRE_ROLL_MS // FRAME_MS)
        self._turn: list[bytes] = []
        self._quiet_ms = 0

    def push(self, pcm: bytes, *, over_speech: bool = False) -> list[Began | Ended]:
        """Take sound; `over_speech`: the assistant speaks at the same time, so be harder to convince."""
        data = self._left + pcm
        whole = len(data) // FRAME_BYTES * FRAME_BYTES
        self._left = data[whole:]
        frames = (data[at : at + FRAME_BYTES] for at in range(0, whole, FRAME_BYTES))
        return [event for frame in frames if (event := self._frame(frame, over_speech))]

    def _frame(self, frame: bytes, over_speech: bool) -> Began | Ended | None:
        level = level_db(frame)
        self._follow_noise(level)
        if self.speaking:
            return self._go_on(frame, level)
        extra = OVER_SPEECH_DB if over_speech else 0.0
        loud = level > max(self.floor_db + ON_DB, QUIETEST_SPEECH_DB) + extra
        self._loud.append(loud)
        self._before.append(frame)
        wanted = OVER_SPEECH_FRAMES if over_speech else BEGIN_FRAMES
        if not loud or sum(list(self._loud)[-wanted - 1 :]) < wanted:
            return None
        self.speaking, self._quiet_ms = True, 0
        self._turn = list(self._before)
        self._before.clear()
        self._loud.clear()
        return Began()

    def _go_on(self, frame: bytes, level: float) -> Ended | None:
        self._turn.append(frame)
        quiet = level < max(self.floor_db + OFF_DB, QUIETEST_SPEECH_DB - ON_DB + OFF_DB)
        self._quiet_ms = self._quiet_ms + FRAME_MS if quiet else 0
        if self._quiet_ms < END_MS and len(self._turn) * FRAME_MS < LONGEST_S * 1000:
            return None
        self.speaking = False
        return Ended(b"".join(self._turn))

    def _follow_noise(self, level: float) -> None:
        """Fall with the quietest frames at once, rise slowly."""
        rise = RISE_SPEAKING_DB if self.speaking else RISE_DB
        followed = min(level, self.floor_db + rise)
        self.floor_db = min(HIGHEST_DB, max(LOWEST_DB, followed))


def level_db(frame: bytes) -> float:
    """Level of PCM16 sound below full scale; -100 for silence."""
    samples = np.frombuffer(frame, dtype="<i2").astype(np.float64) / 32768
    samples -= samples.mean()
    power = float(np.mean(samples**2))
    return max(-100.0, 10 * math.log10(power + 1e-10))
