"""The receive buffer of the microphone. Pure: it knows no clock, no socket and no library.

It hands a packet on at once when it is the next in order, and holds those behind a hole for as long
as the missing one may still come in time to be heard. A hole shows as a jump of the time stamps;
filling it is the business of `server.sound.intake`. `server.webrtc.aiortc_internals` puts it in the place of
aiortc's own.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")
MAX_JUMP = 100  # a larger step of the sequence number means that the sender started again


class MicJitterBuffer(Generic[T]):
    """Puts packets in order.

    Bound: what waits is within `MAX_JUMP` packets of the next one, and waits no longer than told.

    Law: packets come out in rising order, each at most once.
    """

    def __init__(self) -> None:
        self.lost = 0  # packets given up that did not come after all
        self.late = 0  # packets that came after they were given up
        self._next: int | None = None
        self._waiting: dict[int, tuple[float, T]] = {}
        self._given_up: set[int] = set()

    def add(self, sequence: int, item: T, now: float, until: float) -> list[T]:
        """Take packet `sequence` (16 bits, wraps) and return what is ready, in order.

        Packets missing right before this one are given up at `until`.
        """
        if self._next is None:
            self._next = sequence
        ahead = _distance(self._next, sequence)
        if abs(ahead) > MAX_JUMP:
            self._waiting.clear()
            self._given_up.clear()
            self._next, ahead = sequence, 0
        if ahead >= 0:
            self._waiting.setdefault(sequence, (until, item))
        elif sequence in self._given_up:
            self._given_up.remove(sequence)
            self.lost -= 1
            self.late += 1
        return self.expire(now)

    def expire(self, now: float) -> list[T]:
        """Give up the holes whose time is over and return what was behind them, in order."""
        ready = self._drain()
        while (due := self.expires_at) is not None and due <= now:
            self._give_up()
            ready += self._drain()
        return ready

    @property
    def expires_at(self) -> float | None:
        """When the first hole is to be given up; None when nothing waits."""
        if self._next is None or not self._waiting:
            return None
        start = self._next
        return self._waiting[min(self._waiting, key=lambda s: _distance(start, s))][0]

    def _drain(self) -> list[T]:
        ready: list[T] = []
        while self._next is not None and self._next in self._waiting:
            ready.append(self._waiting.pop(self._next)[1])
            self._next = (self._next + 1) % 0x10000
        return ready

    def _give_up(self) -> None:
        """Step over the packets that are missing before the first that waits."""
        assert self._next is not None
        while self._next not in self._waiting:
            self.lost += 1
            self._given_up.add(self._next)
            self._next = (self._next + 1) % 0x10000
        start = self._next
        self._given_up = {s for s in self._given_up if _distance(start, s) >= -MAX_JUMP}


def _distance(start: int, sequence: int) -> int:
    """How far `sequence` is ahead of `start`, across the wrap."""
    return (sequence - start + 0x8000) % 0x10000 - 0x8000
