"""The microphone of a session for who listens: an assistant's ears."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from server.live.events import Event
from server.live.session import Session
from server.sound.intake import Pcm48
from server.sound.sound_format import Encoder, SoundFormat

KEPT = 250  # packets that may wait for the listener, 5 s


class Listening:
    """The microphone's sound as PCM16 at any rate, gaps filled, in real time: `async for data in it`.

    It ends with the session.

    Bound: 5 s. Overflow: the oldest goes.

    Raises:
        SpeechRefused: bad_format.
    """

    def __init__(self, session: Session, rate_hz: int) -> None:
        self._session = session
        self._encoder = Encoder(SoundFormat(rate_hz).rate_hz)
        self._packets: deque[bytes] = deque(maxlen=KEPT)
        self._changed = asyncio.Event()
        self._over = False

    def __enter__(self) -> Self:
        self._end = self._session.line.overhear(self._take)
        self._end_events = self._session.events.subscribe(self._follow)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self._end_events()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._packets:
                yield self._packets.popleft()
            if self._over:
                return
            self._changed.clear()
            await self._changed.wait()

    def _follow(self, event: Event) -> None:
        if event.type == "closing":
            self._over = True
            self._changed.set()

    def _take(self, pcm: Pcm48) -> None:
        if data := self._encoder.push(pcm):
            self._packets.append(data)
        self._changed.set()
