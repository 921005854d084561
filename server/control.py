"""The data channel `control`: JSON messages between a viewer and its session."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiortc import RTCDataChannel

LABEL = "control"
MAX_MESSAGE = 4096  # characters of a message; a longer one is ignored
MAX_UNREAD = 64 * 1024  # bytes of our own messages that may wait for the viewer


class Control:
    """Understands `interrupt` and `ping`; anything else that a viewer says is ignored."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._channel: RTCDataChannel | None = None

    def attach(self, channel: RTCDataChannel) -> None:
        """Talk over `channel` from now on, if it is a control channel."""
        if channel.label == LABEL:
            self._channel = channel
            channel.on("message", self._on_message)

    def send(self, body: dict[str, Any]) -> None:
        """Tell the viewer; one that has stopped listening is told no more."""
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > MAX_UNREAD:
            return
        channel.send(json.dumps(body))

    def _on_message(self, message: Any) -> None:
        if not isinstance(message, str) or len(message) > MAX_MESSAGE:
            return
        try:
            body = json.loads(message)
        except (ValueError, RecursionError):
            return
        if not isinstance(body, dict):
            return
        if body.get("type") == "interrupt":
            self._interrupt()
        elif body.get("type") == "ping":
            self.send({"type": "pong", "t": body.get("t")})
