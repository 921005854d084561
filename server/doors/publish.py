"""A session sent out: RTMP, SRT, or a file. Only where `--publish-to` allows it.

`POST /api/sessions/{id}/publish {"url": "rtmp://host/app/key"}` begins, `DELETE` of its Location ends
it when all is sent; `sender` events tell what becomes of it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from server.live.outlet import Heard
from server.live.session import Session
from server.sending.carriers import Carrier, FileCarrier, network_carrier
from server.sending.muxing import Muxer
from server.sending.senders import Sender, SendingFailed
from server.targets import Targets
from server.web.http import read_json, sender_routes, sending, service_of, session_of

STALLED_S = 10.0  # who takes nothing for so long is given up
LOOK_S = 0.5


class Publication(BaseModel):
    """POST /api/sessions/{id}/publish."""

    url: str = Field(max_length=1000)


class Backlog:
    """Between the event loop and an encoder's thread.

    Bound: three pictures and a second of sound. Overflow: the oldest goes; silence takes the place of
    sound.
    """

    def __init__(self) -> None:
        self._pictures: deque[av.VideoFrame] = deque(maxlen=3)
        self._sounds: deque[Heard] = deque(maxlen=50)
        self._changed = threading.Condition()
        self._closed = False
        self._taken_at = time.monotonic()

    def show(self, frame: av.VideoFrame) -> None:
        """Add a picture."""
        with self._changed:
            self._pictures.append(frame)
            self._changed.notify()

    def hear(self, heard: Heard) -> None:
        """Add sound."""
        with self._changed:
            self._sounds.append(heard)
            self._changed.notify()

    def close(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def stalled_s(self) -> float:
        """For how long nothing was taken of what is there."""
        with self._changed:
            return time.monotonic() - self._taken_at if self._sounds else 0.0

    def first(self) -> av.VideoFrame | None:
        """Wait for a picture and leave it here; None if none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._pictures or self._closed)
            self._taken_at = time.monotonic()
            return self._pictures[0] if self._pictures else None

    def take(self) -> av.VideoFrame | Heard | None:
        """Wait for the next picture or sound; None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._pictures or self._sounds or self._closed)
            self._taken_at = time.monotonic()
            if self._sounds:
                return self._sounds.popleft()
            return self._pictures.popleft() if self._pictures else None


class Publisher(Sender):
    """Encodes a session on a thread of its own; the session never waits for it."""

    def __init__(
        self, session: Session, target: str, carrier: Carrier, most_bps: int | None
    ) -> None:
        super().__init__(session, "publish", target)
        self._carrier, self._most_bps = carrier, most_bps
        self._backlog = Backlog()

    async def send(self) -> None:
        """Encode until the outlet is closed, or the other side takes nothing any more."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        encoding = asyncio.get_running_loop().run_in_executor(thread, self._encode)
        encoding.add_done_callback(lambda done: done.exception())  # once given up, nobody asks
        feeding = asyncio.gather(self._feed_pictures(), self._feed_sounds())
        both: list[asyncio.Future[Any]] = [encoding, feeding]
        try:
            while not (encoding.done() or feeding.done()):
                await asyncio.wait(both, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                if self._backlog.stalled_s() > STALLED_S:
                    self._carrier.kill()
                    raise SendingFailed(f"it took nothing for {STALLED_S:g} s")
            self._backlog.close()
            await asyncio.wait([encoding], timeout=self._carrier.finish_s)
            if not encoding.done():
                self._carrier.kill()
                raise SendingFailed("what was left could not be sent")
            encoding.result()
        finally:
            feeding.cancel()
            self._backlog.close()
            thread.shutdown(wait=False)

    async def _feed_pictures(self) -> None:
        try:
            while True:
                self._backlog.show((await self.outlet.picture()).frame)
        except EOFError:
            return

    async def _feed_sounds(self) -> None:
        try:
            while True:
                self._backlog.hear(await self.outlet.sound())
        except EOFError:
            return

    def _encode(self) -> None:
        first = self._backlog.first()
        if first is None:
            self._carrier.discard()
            return
        with self._carrier.opened() as container:
            muxer = Muxer(container, first, most_bps=self._most_bps)
            while (item := self._backlog.take()) is not None:
                if isinstance(item, Heard):
                    muxer.hear(item.pts, item.pcm)
                else:
                    muxer.show(item)
            muxer.finish()


async def begin(request: Request) -> Response:
    """Send a session out."""
    body = await read_json(request, Publication)
    service, session = service_of(request), session_of(request)
    targets = Targets(service.settings.publish_to)
    carrier: Carrier
    if body.url.startswith("file:"):
        path = targets.file(body.url)
        carrier = FileCarrier(path, service.credentials)
        shown, most_bps = f"file:{path.name}", None
    else:
        target = targets.address(body.url, "rtmp", "rtmps", "srt")
        carrier, shown = await asyncio.to_thread(network_carrier, target), target.shown
        most_bps = service.settings.video_bitrate_bps
    publisher = Publisher(session, shown, carrier, most_bps)
    started = False
    try:
        service.senders.start(publisher)
        started = True
    finally:
        if not started:
            await asyncio.to_thread(carrier.discard)
    return sending(publisher)


ROUTES = sender_routes("publish", begin, Publication)
