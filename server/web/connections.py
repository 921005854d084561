"""Connections to the HTTP port: how many there may be, and how long each may take to say what it wants."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.settings import ServerSettings

HEAD_S = 10.0  # for the head of a request
BODY_S = 32.0  # for its body; `server.web.uploads` says so in words before
KEPT_BACK = 256  # descriptors for the media, the engine and files
LEAST, MOST = 64, 16_384


def most_connections(settings: ServerSettings) -> int:
    """How many there may be; unless it is set, what the limit of descriptors leaves."""
    if settings.connections:
        return settings.connections
    if sys.platform == "win32":  # it has no such limit
        return MOST
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(LEAST, min(soft, MOST) - KEPT_BACK)


class Doorkeeper:
    """Knows which connections have not asked for anything yet.

    Bound: `most` connections in all, `per_address` of each network address (this machine's are not
    counted: a proxy stands there). Overflow: the one that has been waited for longest goes, or the new
    one if all have asked for something.
    """

    def __init__(self, most: int, per_address: int) -> None:
        self._most, self._per_address = most, per_address
        self.waiting: dict[Connection, None] = {}

    def came(self, new: Connection) -> None:
        """Make room for a new connection, or refuse it."""
        address = _address(new)
        if self._per_address and not _is_loopback(address):
            same = sum(_address(each) == address for each in new.connections)
            if same > self._per_address:
                new.drop()
                return
        if len(new.connections) > self._most:
            next(iter(self.waiting), new).drop()


def _address(connection: object) -> str:
    """The network address at the other end of a connection of the library's, whatever it speaks."""
    client = getattr(connection, "client", None)
    return str(client[0]) if client else ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True  # no network's


class Connection(H11Protocol):
    """One connection, ended if it takes too long to ask."""

    def __init__(self, keeper: Doorkeeper, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._keeper = keeper
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of a request."""
        super().connection_made(transport)
        self._keeper.came(self)
        if not transport.is_closing():
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._wait_for(None, 0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request; the library hangs up after a while."""
        super().on_response_complete()
        self._wait_for(None, 0)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._keeper.waiting[self] = None

    def drop(self) -> None:
        """Hang up at once."""
        self._wait_for(None, 0)
        self.connections.discard(self)
        self.transport.abort()

    def _look(self) -> None:
        """Limit the time of what is waited for now, from when that began."""
        state = self.conn.their_state
        mine = self.transport.get_protocol() is self  # else it is a WebSocket now
        if mine and state is h11.IDLE:
            self._wait_for(state, HEAD_S)
        elif mine and state is h11.SEND_BODY:
            self._wait_for(state, BODY_S)
        else:
            self._wait_for(None, 0)

    def _wait_for(self, state: object, limit_s: float) -> None:
        if state is h11.IDLE:
            self._keeper.waiting.setdefault(self)
        else:
            self._keeper.waiting.pop(self, None)
        if state is self._waits_for and state is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._waits_for = state
        self._timer = None if state is None else self.loop.call_later(limit_s, self.drop)
