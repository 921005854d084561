"""The receive buffer of the microphone, and how it takes the place of the library's own.

The library's audio buffer holds 80 ms always, and 280 ms for good after one lost packet. This one
hands a packet on at once when it is the next in order, holds a hole until two later packets are
there, then gives the hole up and drains. A hole shows as a jump of the time stamps; filling it is
the business of `server.intake`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import aiortc.rtcrtpreceiver as library
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import RtpPacket

T = TypeVar("T")
HOLD_PACKETS = 2  # later packets that must wait before a hole is given up
MAX_JUMP = 100  # a larger step of the sequence number means that the sender started again
ARRIVALS_KEPT = 64


class MicJitterBuffer(Generic[T]):
    """Puts packets in order. Knows no clock and no socket.

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


class AudioPackets:
    """The library's buffer interface over `MicJitterBuffer`; one packet is one frame.

    `arrived_at` remembers when a packet came, by the time stamp its decoded sound will carry.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.packets: MicJitterBuffer[RtpPacket] = MicJitterBuffer()
        self.more: list[JitterFrame] = []
        self._clock = clock
        self._origin: int | None = None
        self._arrivals: OrderedDict[int, float] = OrderedDict()

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Return (False, first ready frame or None); the other ready ones are left in `more`."""
        self._arrivals[packet.timestamp] = self._clock()
        while len(self._arrivals) > ARRIVALS_KEPT:
            self._arrivals.popitem(last=False)
        if not packet.payload:  # the decoder would take it for the end of the stream
            return False, None
        ready = self.packets.add(packet.sequence_number, packet)
        frames = [JitterFrame(data=p._data, timestamp=p.timestamp) for p in ready]  # type: ignore[attr-defined]
        if frames and self._origin is None:
            self._origin = frames[0].timestamp
        self.more = frames[1:]
        return False, (frames[0] if frames else None)

    def arrived_at(self, pts: int) -> float | None:
        """When the packet whose decoded frame has time stamp `pts` came; None if long ago."""
        if self._origin is None:
            return None
        return self._arrivals.get((pts + self._origin) % (1 << 32))


def _make_buffer(capacity: int, prefetch: int = 0, is_video: bool = False) -> Any:
    if is_video:
        return JitterBuffer(capacity=capacity, prefetch=prefetch, is_video=True)
    return AudioPackets()


def packets_of(receiver: library.RTCRtpReceiver) -> AudioPackets:
    """Return the receive buffer of an audio receiver made after `install_mic_buffer`."""
    buffer = receiver._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]
    if not isinstance(buffer, AudioPackets):
        raise TypeError(f"the receiver has a {type(buffer).__name__}; install_mic_buffer() first")
    return buffer


_handle_rtp_packet = library.RTCRtpReceiver._handle_rtp_packet


async def _handle_and_drain(
    self: library.RTCRtpReceiver, packet: RtpPacket, arrival_time_ms: int
) -> None:
    """Let the library handle `packet`, then decode the frames it would have left behind."""
    await _handle_rtp_packet(self, packet, arrival_time_ms)
    buffer = self._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]
    if not isinstance(buffer, AudioPackets) or not buffer.more:
        return
    codec = self._RTCRtpReceiver__codecs[packet.payload_type]  # type: ignore[attr-defined]
    mapper = self._RTCRtpReceiver__timestamp_mapper  # type: ignore[attr-defined]
    frames, buffer.more = buffer.more, []
    for frame in frames:
        frame.timestamp = mapper.map(frame.timestamp)
        self._RTCRtpReceiver__decoder_queue.put((codec, frame))  # type: ignore[attr-defined]


def install_mic_buffer() -> None:
    """Make every audio receiver created from now on use `MicJitterBuffer`. May be called twice."""
    vars(library)["JitterBuffer"] = _make_buffer
    library.RTCRtpReceiver._handle_rtp_packet = _handle_and_drain  # type: ignore[method-assign]
