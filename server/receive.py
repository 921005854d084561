"""The receive buffer of the microphone. Pure: it knows no clock, no socket and no library.

It hands a packet on at once when it is the next in order, holds a hole until two later packets are
there, then gives the hole up and drains. A hole shows as a jump of the time stamps; filling it is
the business of `server.intake`. `server.aiortc_internals` puts it in the place of aiortc's own.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")
HOLD_PACKETS = 2  # later packets that must wait before a hole is given up
MAX_JUMP = 100  # a larger step of the sequence number means that the sender started again


class MicJitterBuffer(Generic[T]):
    """Puts packets in order.

    Bound: at most `hold` packets wait (40 ms at 20 ms a packet); the next one ends the wait.

    Law: packets come out in rising order, each at most once.
    """

    def __init__(self, hold: int = HOLD_PACKETS) -> None:
        self.hold = hold
        self.lost = 0  # packets given up
        self.late = 0  # packets that came after they were given up, or twice
        self._next: int | None = None
        self._waiting: dict[int, T] = {}

    def add(self, sequence: int, item: T) -> list[T]:
        """Take packet `sequence` (16 bits, wraps) and return what is ready, in order."""
        if self._next is None:
            self._next = sequence
        ahead = (sequence - self._next + 0x8000) % 0x10000 - 0x8000
        if abs(ahead) > MAX_JUMP:
            self._waiting.clear()
            self._next, ahead = sequence, 0
        if ahead < 0 or sequence in self._waiting:
            self.late += 1
            return []
        self._waiting[sequence] = item
        ready = self._drain()
        while len(self._waiting) >= self.hold:
            self.lost += 1
            self._next = (self._next + 1) % 0x10000
            ready += self._drain()
        return ready

    def _drain(self) -> list[T]:
        ready: list[T] = []
        while self._next is not None and self._next in self._waiting:
            ready.append(self._waiting.pop(self._next))
            self._next = (self._next + 1) % 0x10000
        return ready
