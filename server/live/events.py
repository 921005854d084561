"""What a session tells everybody who listens: its viewers, its doors, the page."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Mood = Literal["idle", "listening", "thinking", "speaking"]
EventType = Literal[
    "ready",  # a viewer is connected for the first time: session_id
    "state",  # state: idle, listening, thinking or speaking
    "speaking_started",  # utterance, position_ms
    "speaking_stopped",  # utterance, position_ms, interrupted
    "interrupted",  # utterance (or null), position_ms, dropped: utterances that were never begun
    "buffer",  # buffered_ms of speech that waits
    "caption",  # utterance, text, start_ms, end_ms
    "quality",  # level: 0 is full quality
    "text",  # text: typed by a viewer, for the assistant
    "prompt",  # prompt: what the face expresses from now on
    "portrait",  # portrait_id
    "viewers",  # count
    "sender",  # id, kind (publish, livelink, camera), target, state: started, ended or failed, message
    "stats",  # fps, legs_ms, dropped; once a second
    "error",  # code, message
    "pong",  # the answer to a door's ping, told to nobody else
    "heard",  # utterance: a caller on the telephone has heard it to its end
    "draining",  # in_ms: the server stops then; `closing` follows
    "closing",  # reason
]
KEPT = 256  # events that a listener may leave unread; then the oldest go


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; times are in ms, positions are in the utterance's own sound."""

    type: EventType
    data: Mapping[str, Any] = field(default_factory=dict)

    def message(self) -> dict[str, Any]:
        """As a JSON object: `{"type": ..., ...}`."""
        return {"type": self.type, **self.data}


class Listener:
    """The events since `listen` was called, in order. Ends after `closing`.

    Bound: 256 unread events. Overflow: the oldest go, `missed` counts them.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._closing = False

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self._closing and not self._events

    def put(self, event: Event) -> None:
        """Take an event; on the event loop."""
        if len(self._events) >= KEPT:
            self._events.popleft()
            self.missed += 1
        self._events.append(event)
        self._closing |= event.type == "closing"
        self._changed.set()

    async def next(self, limit_s: float | None = None) -> Event | None:
        """Wait for the next event; None if it is over, or none came for `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                while not self._events and not self.over:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._events.popleft() if self._events else None

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.next()) is not None:
            yield event


class EventHub:
    """Hands every event to every listener. Lives on the event loop."""

    def __init__(self) -> None:
        self._takers: list[Callable[[Event], None]] = []
        self._last: Event | None = None  # `closing`, for who listens afterwards

    def emit(self, type: EventType, **data: Any) -> None:
        """Tell everybody; after `closing` nobody hears anything."""
        if self._last is not None:
            return
        event = Event(type, data)
        if type == "closing":
            self._last = event
        for take in list(self._takers):
            take(event)

    def subscribe(self, take: Callable[[Event], None]) -> Callable[[], None]:
        """Call `take` with every event from now on; returns what ends it."""
        self._takers.append(take)
        if self._last is not None:
            take(self._last)

        def end() -> None:
            if take in self._takers:
                self._takers.remove(take)

        return end

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Listen inside the block: `async for event in listener`."""
        listener = Listener()
        end = self.subscribe(listener.put)
        try:
            yield listener
        finally:
            end()
