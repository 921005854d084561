"""The microphone of a session for who listens: an assistant's ears."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from fractions import Fraction
from types import TracebackType
from typing import Self

import av

from server.events import Event
from server.intake import SOUND_RATE_HZ, Pcm48
from server.session import Session
from server.sound_format import RATES_HZ, SpeechRefused

KEPT = 250  # packets that may wait for the listener, 5 s


class Listening:
    """The microphone's sound as PCM16 at any rate, gaps filled, in real time: `async for data in it`.

    It ends with the session.

    Bound: 5 s. Overflow: the oldest goes.

    Raises:
        SpeechRefused: bad_format.
    """

    def __init__(self, session: Session, rate_hz: int) -> None:
        if rate_hz not in RATES_HZ:
            known = ", ".join(map(str, RATES_HZ))
            raise SpeechRefused("bad_format", f"{rate_hz} Hz is not given; {known} are")
        self._session = session
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
        self._pts = 0
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
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SOUND_RATE_HZ, self._pts
        frame.time_base = Fraction(1, SOUND_RATE_HZ)
        self._pts += len(pcm)
        for part in self._resampler.resample(frame):
            self._packets.append(part.to_ndarray().tobytes())
        self._changed.set()
