"""What one receiver of a session gets: pictures and sound, when they leave."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import av

from server.live.clips import Picture, Spoken
from server.live.yuv import Yuv
from server.sound.intake import Pcm48

SOUND_KEPT = 25  # packets, 500 ms


class Shown(NamedTuple):
    """A picture that leaves: `frame` is yuv420p and shared by all outlets, its `pts` at 90 kHz."""

    frame: av.VideoFrame
    yuv: Yuv  # its planes
    picture: Picture
    wall: float | None  # Unix time of the time stamp, on the line that sound and pictures share


class Heard(NamedTuple):
    """20 ms of sound that leave: `pcm` (960,) at 48 kHz, `pts` at 48 kHz, and what of it is whose speech."""

    pcm: Pcm48
    pts: int
    wall: float | None
    spoken: tuple[Spoken, ...] = ()


class Outlet:
    """The queue of one receiver; on the event loop.

    Bound: one picture, and 500 ms of sound. Overflow: a newer picture takes the place of one that was not
    fetched; the oldest sound goes.
    """

    def __init__(self) -> None:
        self.missed = 0  # pictures that were not fetched in time
        self.taps: list[Callable[[Heard], None]] = []  # hear what is given to this receiver
        self._picture: Shown | None = None
        self._sound: deque[Heard] = deque(maxlen=SOUND_KEPT)
        self._picture_came = asyncio.Event()
        self._sound_came = asyncio.Event()
        self.closed = False  # nothing more comes

    def show(self, shown: Shown) -> None:
        """Offer a picture."""
        self.missed += self._picture is not None
        self._picture = shown
        self._picture_came.set()

    def hear(self, heard: Heard) -> None:
        """Offer a packet of sound."""
        self._sound.append(heard)
        for tap in self.taps:
            tap(heard)
        self._sound_came.set()

    def close(self) -> None:
        """Nothing more comes."""
        self.closed = True
        self._picture_came.set()
        self._sound_came.set()

    async def picture(self) -> Shown:
        """Wait for the next picture; raises `EOFError` once it is closed."""
        while self._picture is None:
            if self.closed:
                raise EOFError
            self._picture_came.clear()
            await self._picture_came.wait()
        shown, self._picture = self._picture, None
        return shown

    async def sound(self) -> Heard:
        """Wait for the next packet of sound; raises `EOFError` once it is closed."""
        while not self._sound:
            if self.closed:
                raise EOFError
            self._sound_came.clear()
            await self._sound_came.wait()
        return self._sound.popleft()
