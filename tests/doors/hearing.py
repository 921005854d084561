"""Sound that can be told apart from any other, and an ear that hears what leaves a session."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect

from server.live.clips import Spoken
from server.live.outlet import Outlet
from server.live.session import Session
from tests.server.live import Live

RATE = 48_000
PIECE = RATE // 25  # 40 ms
Sound = NDArray[np.int16]


def babble(seconds: float, rate_hz: int, seed: int = 0) -> Sound:
    """Noise of the voice's band: no stretch of it is like another."""
    count = int(seconds * rate_hz)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / rate_hz)
    spectrum[(hz < 200) | (hz > 3000)] = 0
    noise = np.fft.irfft(spectrum, count)
    return np.asarray(noise / np.abs(noise).max() * 12_000, dtype=np.int16)


def place_of(part: NDArray[Any], whole: NDArray[Any]) -> tuple[int, float]:
    """Where `part` is in `whole`, in samples, and how alike they are there (1: the same)."""
    size = 1 << (len(part) + len(whole)).bit_length()
    a, b = (np.fft.rfft(x.astype(float), size) for x in (whole, part))
    lags = np.fft.irfft(a * b.conj(), size)[: max(1, len(whole) - len(part) + 1)]
    at = int(np.argmax(lags))
    return at, alike(part, whole[at : at + len(part)])


def alike(one: NDArray[Any], other: NDArray[Any]) -> float:
    """How alike two stretches of sound are (1: the same); 0 where they are not of one length."""
    if len(one) != len(other):
        return 0.0
    a, b = one.astype(float), other.astype(float)
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm else 0.0


def wholeness(said: Sound, heard: Sound) -> tuple[float, float]:
    """How much of `said` (48 kHz) is in `heard` in order, and by how many ms it is too long or short.

    Looked for in pieces of 40 ms, each up to 500 ms too soon or too late after the one before.
    """
    at, _ = place_of(said[: RATE // 5], heard)
    found = []
    for begin in range(0, len(said) - PIECE + 1, PIECE):
        part = said[begin : begin + PIECE]
        if alike(part, heard[at : at + PIECE]) > 0.9:
            found.append(at - begin)
        else:
            low = max(0, at - RATE // 2)
            place, likeness = place_of(part, heard[low : at + PIECE + RATE // 2])
            if likeness > 0.9:
                at = low + place
                found.append(at - begin)
        at += PIECE
    off_ms = (found[-1] - found[0]) / 48 if found else np.inf
    return len(found) / (len(said) // PIECE), off_ms


def at_48k(pcm: Sound, rate_hz: int) -> Sound:
    """The sound (N,) of another rate at 48 kHz, as a decoder makes it."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = rate_hz
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in parts])


def telephone(pcm: Sound, law: str = "mulaw") -> bytes:
    """8 kHz sound (N,) as the lines of telephones carry it, `mulaw` or `alaw`: a byte a sample."""
    coder = av.CodecContext.create(f"pcm_{law}", "w")
    coder.sample_rate, coder.layout, coder.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    return b"".join(bytes(packet) for packet in coder.encode(frame))


def loud(pcm: NDArray[Any]) -> bool:
    return bool(np.abs(pcm.astype(np.int32)).max(initial=0) > 600)


class Ear:
    """All sound that leaves a session, with the time of each 20 ms, and what of it is whose speech."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.packets: list[Sound] = []
        self.spoken: list[tuple[Spoken, ...]] = []

    def hear(self, pcm: Sound, spoken: tuple[Spoken, ...] = ()) -> None:
        self.times.append(time.monotonic())
        self.packets.append(pcm)
        self.spoken.append(spoken)

    @property
    def sound(self) -> Sound:
        return np.concatenate([np.zeros(0, np.int16), *self.packets])

    def speech(self, utterance: str | None = None) -> Sound:
        """What was said, in one utterance or in all.

        Without what stands in for packets that a busy machine makes late: it is nobody's speech.
        """
        said = [
            pcm[part.begin : part.end]
            for pcm, parts in zip(self.packets, self.spoken, strict=True)
            for part in parts
            if utterance in (None, part.utterance)
        ]
        return np.concatenate([np.zeros(0, np.int16), *said])

    def loud_times(self) -> list[float]:
        return [at for at, pcm in zip(self.times, self.packets, strict=True) if loud(pcm)]


@contextmanager
def listening(session: Session) -> Iterator[Ear]:
    """Receive the session's sound inside the block, as any receiver does."""
    ear, outlet = Ear(), Outlet()
    outlet.taps.append(lambda heard: ear.hear(heard.pcm, heard.spoken))
    assert session.attach(outlet)
    try:
        yield ear
    finally:
        session.detach(outlet)


def cut_at_ms(said: Sound, speech: Sound) -> float:
    """How far `said` (48 kHz) had come where `speech` ends, which was cut off in it.

    Found by its last 200 ms: what a session says of its position is not asked.
    """
    at, likeness = place_of(speech[-RATE // 5 :], said)
    assert likeness > 0.9
    return (at + RATE // 5) / 48


class Door:
    """A client of the speech WebSocket; `events` are all that came so far."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.microphone: list[bytes] = []
        self.came = asyncio.Event()

    async def follow(self) -> None:
        async for message in self.socket:
            if isinstance(message, bytes):
                self.microphone.append(message)
            else:
                self.events.append(json.loads(message))
                self.times.append(time.monotonic())
            self.came.set()
        self.came.set()

    async def say(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def event(
        self, type: str, *, nth: int = 1, limit_s: float = 5.0, **fields: Any
    ) -> dict[str, Any]:
        """Wait for the nth event of that type with these fields."""
        seen = 0
        async with asyncio.timeout(limit_s):
            while True:
                for event in self.events[seen:]:
                    nth -= event["type"] == type and fields.items() <= event.items()
                    if nth == 0:
                        return event
                seen = len(self.events)
                self.came.clear()
                await self.came.wait()

    def when(self, event: dict[str, Any]) -> float:
        """When that event came, monotonic."""
        return self.times[self.events.index(event)]

    def types(self, *wanted: str) -> list[str]:
        return [e["type"] for e in self.events if e["type"] in wanted]


@asynccontextmanager
async def door(live: Live, path: str, **options: Any) -> AsyncIterator[Door]:
    url = live.url.replace("http", "ws", 1) + path
    async with connect(url, proxy=None, **options) as socket:
        opened = Door(socket)
        task = asyncio.ensure_future(opened.follow())
        try:
            await opened.event("session")
            yield opened
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def new_session(live: Live, **wishes: Any) -> Session:
    made = await live.http.post("/api/sessions", json=wishes)
    assert made.status_code == 201, made.text
    return live.service.find_session(made.json()["session_id"])
