"""Bodies of requests: how long they may take, and how much memory all of them together."""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ApiError
from server.live.limits import RETRY_AFTER_S

BODY_S = 30.0
MOST_BYTES = 64 * 1024 * 1024


class UploadLimits:
    """Passes bodies on while they are quick enough and there is room.

    Bound: `most_bytes` of bodies whose requests are not answered yet, `limit_s` for each. Overflow: the
    request that is one too many is refused (503, `uploads_full`), as is a slow one (408, `too_slow`).
    """

    def __init__(self, app: ASGIApp, most_bytes: int = MOST_BYTES, limit_s: float = BODY_S) -> None:
        self._app, self._most, self._limit_s = app, most_bytes, limit_s
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held, over, ends = 0, False, time.monotonic() + self._limit_s

        async def limited() -> Message:
            nonlocal held, over
            if over:  # what is waited for now is the end of the connection
                return await receive()
            try:
                async with asyncio.timeout(ends - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                said = f"the body took longer than {self._limit_s:g} s"
                raise ApiError(408, "too_slow", said, {"Connection": "close"}) from None
            size = len(message.get("body", b""))
            held += size
            self._held += size
            over = not message.get("more_body", False)
            if self._held > self._most:
                retry = {"Retry-After": str(RETRY_AFTER_S)}
                raise ApiError(503, "uploads_full", "too much is being uploaded; try again", retry)
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._held -= held
