"""Uvicorn as this server needs it: limits of connections, and an end without haste."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from engine.errors import ConfigError
from server.settings import ServerSettings
from server.web.connections import Connection, Doorkeeper, most_connections

# So many are accepted in one go, before any of them can be refused; more wait in the system's queue.
ACCEPTED_AT_ONCE, QUEUED = 16, 2048


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket that is bound where the settings say; raises `ConfigError`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    if os.name == "posix":  # elsewhere it would let another program take the port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        bound.close()
        where = f"{settings.host} port {settings.port}"
        raise ConfigError(f"{where} cannot be listened on: {error.strerror or error}") from None
    return bound


class Server(uvicorn.Server):
    """Serves `app` on one socket; SIGTERM lets what is being said end first, a second one does not.

    Args:
        ready: called with the port once it listens.
        drain: what SIGTERM waits for.
    """

    def __init__(
        self,
        app: Starlette,
        settings: ServerSettings,
        ready: Callable[[int], None],
        drain: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        keeper = Doorkeeper(most_connections(settings), settings.connections_per_address)
        config = uvicorn.Config(
            app,
            http=partial(Connection, keeper),  # type: ignore[arg-type]
            ws="websockets-sansio",
            loop="asyncio",  # not uvloop, which some extras bring along
            backlog=ACCEPTED_AT_ONCE,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
        )
        super().__init__(config)
        self._drained, self._ready = drain, ready
        self._draining: asyncio.Future[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started and sockets:
            gc.collect()
            gc.freeze()  # what lives as long as the server is not looked through again
            self._loop = asyncio.get_running_loop()
            for each in sockets:
                each.listen(QUEUED)  # the library asks for as many as it accepts at once
            self._ready(sockets[0].getsockname()[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; raised again when it is over."""
        if sig != signal.SIGTERM or not self.started or self._draining is not None:
            super().handle_exit(sig, frame)
            return
        self._loop.call_soon_threadsafe(self._drain, sig)

    def _drain(self, sig: int) -> None:
        self._draining = asyncio.ensure_future(self._drained())
        self._draining.add_done_callback(lambda done: super(Server, self).handle_exit(sig, None))
