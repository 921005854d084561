"""Everything that touches what aiortc and aioice keep to themselves; their versions are pinned to a minor.

- The receive buffer of a microphone: the library's own holds 80 ms always, and 280 ms for good after
  one lost packet. `MicJitterBuffer` takes its place.
- Sender reports that put video and sound on one line. A receiver lines them up by what the
  reports say: which wall time belongs to which time stamp. The library notes the time when the last
  packet was out, so a frame seems later than its sound by the time it took to encode it, and every
  hold or catch-up bends the line of each track for itself. Here both tracks report the same straight
  line: the wall time of time stamp 0 plus the time stamp.
- What can only be set for the whole process: bit rates, and whether 127.0.0.1 is offered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import aioice.ice
import aiortc.codecs.h264
import aiortc.codecs.vpx
import aiortc.rtcrtpreceiver as library
from aiortc import RTCDtlsTransport, RTCRtpSender
from aiortc.clock import datetime_to_ntp
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import RtcpSrPacket, RtpPacket

from server.receive import MicJitterBuffer

ARRIVALS_KEPT = 64
_host_addresses = aioice.ice.get_host_addresses
_handle_rtp_packet = library.RTCRtpReceiver._handle_rtp_packet


class HasMediaTime(Protocol):
    """A track that knows the wall time of what it gave last."""

    media_time: float | None


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
        """Return (False, first ready frame or None); the other ready ones are left in `more`.

        A packet without payload (a keep-alive, or silence that is not sent) takes its place in the
        order and gives no frame: the decoder would take it for the end of the stream.
        """
        if packet.payload:
            self._arrivals[packet.timestamp] = self._clock()
        while len(self._arrivals) > ARRIVALS_KEPT:
            self._arrivals.popitem(last=False)
        ready = [p for p in self.packets.add(packet.sequence_number, packet) if p.payload]
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


def packets_of(receiver: library.RTCRtpReceiver) -> AudioPackets:
    """Return the receive buffer of an audio receiver made after `install_mic_buffer`.

    Raises:
        TypeError: it has another one.
    """
    buffer = receiver._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]
    if not isinstance(buffer, AudioPackets):
        raise TypeError(f"the receiver has a {type(buffer).__name__}; install_mic_buffer() first")
    return buffer


def packets_received(transport: RTCDtlsTransport) -> int:
    """How many packets of any kind came over this transport."""
    [stats] = transport._get_stats().values()
    return int(stats.packetsReceived)


def report_media_times(sender: RTCRtpSender, track: HasMediaTime) -> None:
    """Make the reports of `sender`, which sends `track`, carry the track's media times."""
    next_frame, send = sender._next_encoded_frame, sender._send_rtcp
    reported: list[int] = []

    async def noted(codec: Any) -> Any:
        frame = await next_frame(codec)
        if frame is not None and track.media_time is not None:
            reported[:] = [datetime_to_ntp(datetime.fromtimestamp(track.media_time, UTC))]
        return frame

    async def stamped(packets: list[Any]) -> None:
        for packet in packets:
            if isinstance(packet, RtcpSrPacket) and reported:
                packet.sender_info.ntp_timestamp = reported[0]
        await send(packets)

    sender._next_encoded_frame = noted  # type: ignore[method-assign]
    sender._send_rtcp = stamped  # type: ignore[method-assign]


def fix_video_bitrate(bits_per_second: int) -> None:
    """Make every video encoder start at this rate and stay there."""
    for codec in (aiortc.codecs.vpx, aiortc.codecs.h264):
        codec.MIN_BITRATE = codec.DEFAULT_BITRATE = codec.MAX_BITRATE = bits_per_second  # type: ignore[attr-defined]


def _addresses_with_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    return sorted({*_host_addresses(use_ipv4, use_ipv6), *(["127.0.0.1"] if use_ipv4 else [])})


def offer_loopback(wanted: bool) -> None:
    """Say whether connections offer 127.0.0.1, which the library leaves out."""
    aioice.ice.get_host_addresses = _addresses_with_loopback if wanted else _host_addresses
