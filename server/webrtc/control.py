"""The data channel `control`: JSON messages between a viewer and its session."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any

from aiortc import RTCDataChannel

LABEL = "control"
MAX_MESSAGE = 4096  # characters of a message, as a rule; a longer one is ignored
MAX_UNREAD = 64 * 1024  # bytes of our own messages that may wait for the viewer
KEPT = 64  # messages that wait until the viewer has opened its channel


class DataChannel:
    """A data channel that carries JSON objects; `take` gets each that the viewer sends.

    What is no JSON object is ignored. What is sent before the viewer has opened it is told then.

    Bound: 64 messages before it is open, 64 KiB that are not read after that. Overflow: before, the
    oldest go; after, a viewer that has stopped listening is told no more.
    """

    def __init__(self, take: Callable[[dict[str, Any]], None], *, limit: int = MAX_MESSAGE) -> None:
        self._take, self._limit = take, limit
        self.opened = asyncio.Event()
        self._channel: RTCDataChannel | None = None
        self._early: deque[dict[str, Any]] = deque(maxlen=KEPT)

    @property
    def open(self) -> bool:
        """Whether the viewer has opened it."""
        return self._channel is not None and self._channel.readyState == "open"

    def attach(self, channel: RTCDataChannel) -> None:
        """Talk over `channel` from now on."""
        self._channel = channel
        channel.on("message", self._on_message)
        self.opened.set()
        while self._early:
            self.send(self._early.popleft())

    def send(self, body: dict[str, Any]) -> None:
        """Tell the viewer."""
        channel = self._channel
        if channel is None:
            self._early.append(body)
            return
        if channel.readyState != "open" or channel.bufferedAmount > MAX_UNREAD:
            return
        channel.send(json.dumps(body))

    def _on_message(self, message: Any) -> None:
        if not isinstance(message, str) or len(message) > self._limit:
            return
        try:
            body = json.loads(message)
        except (ValueError, RecursionError):
            return
        if isinstance(body, dict):
            self._take(body)
