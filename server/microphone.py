"""The microphone of a session for who listens: an assistant's ears."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from server.intake import Pcm48
from server.session import Session
from server.sound_format import RATES_HZ, Encoder, SpeechRefused

KEPT = 250  # packets that may wait for the listener, 5 s


class Listening:
    """The microphone's sound as PCM16 at any rate, gaps filled, in real time: `async for data in it`.

    Bound: 5 s. Overflow: the oldest goes.

    Raises:
        SpeechRefused: bad_format.
    """

    def __init__(self, session: Session, rate_hz: int) -> None:
        if rate_hz not in RATES_HZ:
            known = ", ".join(map(str, RATES_HZ))
            raise SpeechRefused("bad_format", f"{rate_hz} Hz is not given; {known} are")
        self._session = session
        self._encoder = Encoder(rate_hz)
        self._packets: deque[bytes] = deque(maxlen=KEPT)
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        self._end = self._session.line.overhear(self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._packets:
                yield self._packets.popleft()
            self._changed.clear()
            await self._changed.wait()

    def _take(self, pcm: Pcm48) -> None:
        if data := self._encoder.push(pcm):
            self._packets.append(data)
        self._changed.set()
