"""An avatar drawn by a server that runs elsewhere: two WebSockets, one to speak, one to receive."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Literal
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import av
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from engine.errors import AvatarError
from server.programs.link import Link
from server.programs.pieces import Over, Piece, Said

log = logging.getLogger(__name__)
OPEN_S = 10.0
CLOSE_S = 2.0


class LinkFailed(AvatarError):
    """The server cannot be reached, or refuses."""


class Reader:
    """Messages of `/api/sessions/{id}/media` back to pieces."""

    def __init__(self) -> None:
        jpeg = av.CodecContext.create("mjpeg", "r")
        assert isinstance(jpeg, av.VideoCodecContext)
        self._jpeg = jpeg

    def read(self, message: bytes) -> Piece:
        """Return the piece, a picture as yuv420p."""
        line, _, data = message.partition(b"\n")
        head = json.loads(line)
        if head["type"] == "said":
            return Said(head["utterance"], np.frombuffer(data, dtype="<i2"))
        if head["type"] == "over":
            return Over(head["utterance"], head["interrupted"])
        [frame] = self._jpeg.decode(av.Packet(data))
        return frame.reformat(format="yuv420p")


class RemoteLink(Link):
    """A session of the server at `url` (http://host:port), made for this link alone.

    Where the server asks for tokens, `url` ends in `?token=TOKEN`, for `view` and `speak`.
    """

    def __init__(self, url: str, portrait_id: str = "default", prompt: str = "") -> None:
        super().__init__()
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme)
        if scheme is None or not parts.netloc:
            raise LinkFailed(f"url={url!r} is not like http://localhost:8080")
        self._base = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        token = "".join(parse_qs(parts.query).get("token", []))
        self._headers = {"Authorization": f"Bearer {token}"} if token else None
        self._query = {"voice": "assistant", "portrait_id": portrait_id, "prompt": prompt}
        self._speech: ClientConnection | None = None
        self._media: ClientConnection | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Make the session and receive it; raises `LinkFailed`."""
        try:
            self._speech = await self._connect(f"/api/speech?{urlencode(self._query)}")
            first = json.loads(await asyncio.wait_for(self._speech.recv(), OPEN_S))
            self.session_id = str(first["session_id"])
            self._media = await self._connect(f"/api/sessions/{quote(self.session_id)}/media")
        except (OSError, TimeoutError, ConnectionClosed) as error:
            await self.close()
            raise LinkFailed(f"{self._base} cannot be reached: {error}") from None
        except LinkFailed:
            await self.close()
            raise
        parts = (self._receive(self._media), self._listen(self._speech))
        self._tasks = [asyncio.create_task(part) for part in parts]

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for socket in (self._media, self._speech):
            if socket is not None:
                await socket.close()

    async def set_mood(self, mood: Literal["idle", "listening", "thinking"]) -> None:
        """Say what the assistant does while it is silent."""
        await self._send(type="state", state=mood)

    async def _begin(self, utterance: str, rate_hz: int) -> None:
        await self._send(type="begin", utterance=utterance, rate_hz=rate_hz)

    async def _push(self, data: bytes) -> None:
        await self._write(data)

    async def _end(self) -> None:
        await self._send(type="end")

    async def _interrupt(self) -> None:
        await self._send(type="interrupt")

    async def _connect(self, path: str) -> ClientConnection:
        try:
            return await connect(
                self._base + path,
                additional_headers=self._headers,
                open_timeout=OPEN_S,
                close_timeout=CLOSE_S,
                max_size=None,
            )
        except InvalidStatus as error:
            said = error.response.body.decode(errors="replace")[:300]
            raise LinkFailed(f"{self._base} refuses: {said or error}") from None
        except InvalidHandshake as error:
            raise LinkFailed(f"{self._base} is no such server: {error}") from None

    async def _send(self, **message: Any) -> None:
        await self._write(json.dumps(message))

    async def _write(self, message: str | bytes) -> None:
        """Send, if the connection still stands: where it ended is told by the end of the pieces."""
        if self._speech is None:
            return
        try:
            await self._speech.send(message)
        except ConnectionClosed:
            self.pieces.close()

    async def _receive(self, socket: ClientConnection) -> None:
        reader = Reader()
        async for message in _messages(socket):
            self.pieces.put(reader.read(message))
        self.closed_for = self.closed_for or "the connection to the server was lost"
        self.pieces.close()

    async def _listen(self, socket: ClientConnection) -> None:
        """Learn why the session ends, and what the server refuses."""
        async for message in _messages(socket):
            event = json.loads(message)
            if event["type"] == "closing":
                self.closed_for = event["reason"]
            elif event["type"] == "error":
                log.warning("%s: %s", self._base, event["message"])


async def _messages(socket: ClientConnection) -> AsyncIterator[Any]:
    """What comes, until the connection ends in whatever way."""
    try:
        async for message in socket:
            yield message
    except ConnectionClosed:
        return
