"""Test mode: find beeps in the microphone sound and keep the time of each leg they travel."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from server.sound.intake import SOUND_RATE_HZ, Pcm48

LOUD = 0.1  # of full scale
QUIET_S = 0.2  # so long below LOUD before a beep counts
BEEPS_KEPT = 256
LEGS = ("mic_packet", "pcm", "frame_made", "frame_sent")


@dataclass(slots=True)
class Beep:
    """One onset: its number, its place in the sound, and the monotonic time of each leg."""

    id: int  # 1 to 255, then from 1 again
    session: str
    sample: int  # at 48 kHz, from the start of the session
    frame: int  # the frame whose 40 ms hold the sample
    mic_packet: float | None = None  # the packet came in
    pcm: float | None = None  # its samples left the receive buffer
    frame_made: float | None = None  # the engine gave the frame
    frame_sent: float | None = None  # the frame went to the encoder


class BeepFinder:
    """|x| > 0.1 after 200 ms without. Pure.

    Law: splitting the input differently never changes what is found.
    """

    def __init__(self) -> None:
        self._position = 0
        self._last_loud = -int(QUIET_S * SOUND_RATE_HZ)

    def push(self, pcm: Pcm48) -> list[int]:
        """Take `(N,)` and return the positions, counted from the first push, where beeps begin."""
        loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > LOUD * 32767) + self._position
        self._position += len(pcm)
        if len(loud) == 0:
            return []
        gaps = np.diff(loud, prepend=self._last_loud)
        self._last_loud = int(loud[-1])
        return [int(at) for at in loud[gaps >= QUIET_S * SOUND_RATE_HZ]]


class BeepLog:
    """The last beeps of all sessions. Bound: 256; the oldest goes. Any thread may call."""

    def __init__(self) -> None:
        self._beeps: deque[Beep] = deque(maxlen=BEEPS_KEPT)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, session: str, sample: int, samples_per_frame: int) -> Beep:
        """Number a new beep."""
        with self._lock:
            beep = Beep(self._count % 255 + 1, session, sample, sample // samples_per_frame)
            self._count += 1
            self._beeps.append(beep)
        return beep

    def events(self) -> list[dict[str, Any]]:
        """Every beep as a dict, the times as Unix time in seconds."""
        to_wall = time.time() - time.monotonic()
        with self._lock:
            rows = [asdict(beep) for beep in self._beeps]
        for row in rows:
            for leg in LEGS:
                if row[leg] is not None:
                    row[leg] += to_wall
        return rows
