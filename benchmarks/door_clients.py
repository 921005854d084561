"""One client for each door, made of the library that its users have: what `benchmarks.doors` measures through.

A client opens a session, says sound faster than it is spoken, and interrupts. All of it is asyncio.
"""

from __future__ import annotations

import asyncio
import json
import time
from importlib.metadata import version
from typing import Any, Protocol

import httpx
import numpy as np
import websockets
from numpy.typing import NDArray

from benchmarks.framework_clients import LiveKitDoor, PipecatDoor, RealtimeDoor
from benchmarks.voice import wav

Pcm = NDArray[np.int16]  # (N,) at 48 kHz
CHUNK_S = 0.1  # of speech in one message
FASTER = 10  # than it is spoken


class DoorClient(Protocol):
    """A door, and the client that knocks on it."""

    name: str
    client: str  # library and version
    heard_ms: float | None  # of the utterance cut off, where the client's own output plays it

    async def open(self, url: str) -> str:
        """Open a session at the server; returns its id."""

    async def say(self, pcm: Pcm) -> float:
        """Send an utterance (N,), ten times faster than it is spoken; returns when its first sound left, Unix time."""

    async def interrupt(self) -> tuple[float, float | None]:
        """Cut it off; returns when that was asked, Unix time, and the acknowledged position in ms."""

    async def close(self) -> None:
        """End the session."""


class WebSocketDoor:
    """`/api/speech`."""

    name = "WebSocket"
    client = f"websockets {version('websockets')}"
    heard_ms: float | None = None

    async def open(self, url: str) -> str:
        """Open a session at the server; returns its id."""
        address = f"{url.replace('http', 'ws', 1)}/api/speech?rate_hz=48000"
        self._socket = await websockets.connect(address, proxy=None)
        session: str = json.loads(await self._socket.recv())["session_id"]
        self._interrupted: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        return session

    async def say(self, pcm: Pcm) -> float:
        """Send an utterance (N,); returns when its first sound left."""
        await self._socket.send(json.dumps({"type": "begin"}))
        began = time.time()
        step = int(CHUNK_S * 48_000)
        for at in range(0, len(pcm), step):
            await self._socket.send(pcm[at : at + step].tobytes())
            await asyncio.sleep(CHUNK_S / FASTER)
        await self._socket.send(json.dumps({"type": "end"}))
        return began

    async def interrupt(self) -> tuple[float, float | None]:
        """Cut it off; returns when, and the acknowledged position."""
        asked = time.time()
        await self._socket.send(json.dumps({"type": "interrupt"}))
        return asked, float((await self._interrupted.get())["position_ms"])

    async def close(self) -> None:
        """End the session."""
        self._reading.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            body = json.loads(message)
            if body["type"] == "interrupted":
                self._interrupted.put_nowait(body)


class HttpDoor:
    """`/api/sessions`."""

    name = "HTTP"
    client = f"httpx {version('httpx')}"
    heard_ms: float | None = None

    async def open(self, url: str) -> str:
        """Open a session at the server; returns its id."""
        self._http = httpx.AsyncClient(base_url=url, trust_env=False)
        made = await self._http.post("/api/sessions", json={})
        made.raise_for_status()
        self._path = f"/api/sessions/{made.json()['session_id']}"
        return str(made.json()["session_id"])

    async def say(self, pcm: Pcm) -> float:
        """Send an utterance (N,) as a wav file; returns when it left."""
        file = wav(pcm)
        began = time.time()
        said = await self._http.post(f"{self._path}/say", content=file)
        said.raise_for_status()
        return began

    async def interrupt(self) -> tuple[float, float | None]:
        """Cut it off; returns when, and the acknowledged position."""
        asked = time.time()
        answer = await self._http.post(f"{self._path}/interrupt")
        answer.raise_for_status()
        return asked, float(answer.json()["position_ms"])

    async def close(self) -> None:
        """End the session."""
        await self._http.delete(self._path)
        await self._http.aclose()


DOORS: tuple[type[DoorClient], ...] = (
    WebSocketDoor,
    HttpDoor,
    RealtimeDoor,
    PipecatDoor,
    LiveKitDoor,
)
