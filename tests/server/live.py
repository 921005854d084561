"""A whole server in this process, on a free port, and viewers for it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import httpx
import numpy as np
import uvicorn
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from starlette.applications import Starlette

from client_example.headless import Viewer
from engine.types import Engine
from server.app import create_app
from server.service import AvatarService
from server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine

PORTRAIT = np.full((96, 96, 3), (200, 150, 90), dtype=np.uint8)


@dataclass
class Live:
    url: str
    http: httpx.AsyncClient
    app: Starlette

    @property
    def service(self) -> AvatarService:
        service: AvatarService = self.app.state.service
        return service


@asynccontextmanager
async def serving(
    engine: Engine | None = None, settings: ServerSettings | None = None
) -> AsyncIterator[Live]:
    """Serve until the block ends."""
    settings = settings or ServerSettings(port=0)
    if not settings.capacity:  # what the machine can do at the moment is not the point here
        settings = dataclasses.replace(settings, capacity=settings.max_sessions)
    app = create_app(engine or FakeEngine(side=128), settings, PORTRAIT, "Test")
    config = uvicorn.Config(
        app, port=0, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
            yield Live(url, http, app)
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def watching(
    live: Live, microphone: MediaStreamTrack | None = None, **asked: str
) -> AsyncIterator[Viewer]:
    """Watch until the block ends; the picture is there when it begins."""
    viewer = Viewer(live.url, **asked)
    try:
        await viewer.connect(microphone)
        await until(lambda: viewer.report.first_frame_s is not None, 15)
        yield viewer
    finally:
        await viewer.close()


async def offer_sdp(*, video: str = "recvonly", audio: str = "sendrecv") -> str:
    """An offer as a viewer makes it, whose connection is over already."""
    viewer = Viewer("")
    try:
        viewer.pc.addTransceiver("video", direction=video)
        viewer.pc.addTransceiver("audio", direction=audio)
        await viewer.pc.setLocalDescription(await viewer.pc.createOffer())
        return str(viewer.pc.localDescription.sdp)
    finally:
        await viewer.close()


def tamper(viewer: Viewer, change: Callable[[bytes], bytes | None]) -> None:
    """Send what `change` makes of each of the viewer's sound packets; None loses it.

    The library has no door for this: its transport is changed under it.
    """
    transport = viewer.pc.getTransceivers()[0].receiver.transport

    async def send(data: bytes) -> None:
        is_rtcp = 192 <= data[1] <= 223
        changed = data if is_rtcp else change(data)
        if changed is not None:
            await type(transport)._send_rtp(transport, changed)

    transport._send_rtp = send  # type: ignore[method-assign]


def fall_silent(viewer: Viewer) -> None:
    """Send nothing any more, as a tab that crashed."""

    async def nothing(data: bytes) -> None:
        """No packet leaves."""

    viewer.pc.getTransceivers()[0].receiver.transport.transport._send = nothing  # type: ignore[method-assign]


async def until(condition: Callable[[], bool], limit_s: float) -> float:
    """Wait for `condition` and return how long it took; fails after `limit_s`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, f"still not so after {limit_s} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


class Beeper(MediaStreamTrack):
    """A microphone that hears a 30 ms beep every 700 ms."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._began: float | None = None
        self._position = 0

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        self._began = self._began or time.monotonic()
        await asyncio.sleep(max(0.0, self._began + self._position / 48_000 - time.monotonic()))
        at = (np.arange(960) + self._position) % 33_600
        pcm = np.where(at < 1440, np.sin(at * 2 * np.pi * 2000 / 48_000) * 16_000, 0)
        frame = av.AudioFrame.from_ndarray(pcm.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, self._position
        frame.time_base = Fraction(1, 48_000)
        self._position += 960
        return frame
