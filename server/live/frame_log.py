"""Test mode: what each frame that left showed, by the number in its code strip."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, NamedTuple

from server.live.clips import Picture

KEPT = 4096


class Left(NamedTuple):
    """A frame that left.

    `parted` is its lip gap over the face height, `sent` a Unix time; `spoken`: an utterance is on
    its 40 ms of sound.
    """

    session: str
    number: int
    sent: float
    place: int | None
    parted: float | None
    spoken: bool


class FrameLog:
    """The last frames of all sessions. Bound: 4096; the oldest goes. Any thread may call."""

    def __init__(self) -> None:
        self._frames: deque[Left] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def add(self, session: str, number: int, picture: Picture, spoken: bool) -> None:
        """Note that a picture leaves with this number."""
        parted = None if picture.motion is None else round(picture.motion.parted, 4)
        with self._lock:
            left = Left(session, number, time.time(), picture.place, parted, spoken)
            self._frames.append(left)

    def rows(self) -> list[dict[str, Any]]:
        """As JSON objects, the oldest first."""
        with self._lock:
            return [frame._asdict() for frame in self._frames]
