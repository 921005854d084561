"""Everything that touches what aiortc and aioice keep to themselves; their versions are pinned to a minor.

- The receive buffer of a microphone: the library's own holds 80 ms always, and 280 ms for good after
  one lost packet. `MicJitterBuffer` takes its place.
- Sender reports that put video and sound on one line. A receiver lines them up by what the
  reports say: which wall time belongs to which time stamp. The library notes the time when the last
  packet was out, so a frame seems later than its sound by the time it took to encode it, and every
  hold or catch-up bends the line of each track for itself. Here both tracks report the same straight
  line: the wall time of time stamp 0 plus the time stamp.
- The settings of the video encoders, which it makes inside of `encode`.
- What can only be set for the whole process: bit rates, and whether 127.0.0.1 is offered.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import aioice.ice
import aiortc.codecs
import aiortc.codecs.h264
import aiortc.codecs.vpx
import aiortc.rtcrtpreceiver as library
import av
from aiortc import RTCDtlsTransport, RTCRtpSender
from aiortc.clock import datetime_to_ntp
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import RtcpSrPacket, RtpPacket

from server.sound.arrivals import Arrivals
from server.sound.receive import MicJitterBuffer
from server.webrtc.encoders import make_h264, make_vp8

ARRIVALS_KEPT = 64
_host_addresses = aioice.ice.get_host_addresses
_handle_rtp_packet = library.RTCRtpReceiver._handle_rtp_packet


class HasMediaTime(Protocol):
    """A track that knows the wall time of what it gave last."""

    media_time: float | None


class AudioPackets:
    """The library's buffer interface over `MicJitterBuffer`; one packet is one frame.

    `arrived_at` remembers when a packet came, by the time stamp its decoded sound will carry.
    `arrivals` says how long a missing packet is waited for, and learns of those that came too late
    to be decoded; the ones that are decoded are noted by who takes them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.packets: MicJitterBuffer[RtpPacket] = MicJitterBuffer()
        self.arrivals = Arrivals()
        self.more: list[JitterFrame] = []
        self.timer: asyncio.TimerHandle | None = None
        self._clock = clock
        self._last: tuple[int, int] | None = None  # the last frame's time stamp, as sent and from 0
        self._came: OrderedDict[int, float] = OrderedDict()

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Return (False, first ready frame or None); the other ready ones are left in `more`.

        A packet without payload (a keep-alive, or silence that is not sent) takes its place in the
        order and gives no frame: the decoder would take it for the end of the stream.
        """
        now = self._clock()
        pts = self._pts(packet.timestamp)
        if packet.payload:
            self._came[pts] = now
        while len(self._came) > ARRIVALS_KEPT:
            self._came.popitem(last=False)
        late = self.packets.late
        until = self.arrivals.missed_at(pts, now)
        frames = self._frames(self.packets.add(packet.sequence_number, packet, now, until))
        self.arrivals.lost = self.packets.lost
        if self.packets.late > late:
            self.arrivals.late += 1
            self.arrivals.add(pts, now)
        self.more = frames[1:]
        return False, (frames[0] if frames else None)

    def expire(self) -> list[JitterFrame]:
        """Give up what has been missing for too long; return the frames that waited behind it."""
        frames = self._frames(self.packets.expire(self._clock()))
        self.arrivals.lost = self.packets.lost
        return frames

    def expires_in(self) -> float | None:
        """In how many seconds to call `expire`; None when nothing waits."""
        at = self.packets.expires_at
        return None if at is None else max(0.0, at - self._clock())

    def arrived_at(self, pts: int) -> float | None:
        """When the packet whose decoded frame has time stamp `pts` came; None if long ago."""
        return self._came.get(pts)

    def _pts(self, timestamp: int) -> int:
        """Return the time stamp that the decoded frame will carry: from 0, and without a wrap."""
        if self._last is None:
            return 0
        sent, pts = self._last
        return pts + (timestamp - sent + (1 << 31)) % (1 << 32) - (1 << 31)

    def _frames(self, ready: list[RtpPacket]) -> list[JitterFrame]:
        frames = []
        for packet in ready:
            if packet.payload:
                pts = self._pts(packet.timestamp)
                if self._last and pts < self._last[1]:
                    pts += 1 << 32  # what the library makes of a time stamp that goes back
                self._last = packet.timestamp, pts
                frames.append(JitterFrame(data=packet._data, timestamp=packet.timestamp))  # type: ignore[attr-defined]
        return frames


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
    codec = self._RTCRtpReceiver__codecs.get(packet.payload_type)  # type: ignore[attr-defined]
    if isinstance(buffer, AudioPackets) and codec is not None:
        frames, buffer.more = buffer.more, []
        _decode(self, codec, buffer, frames)


def _decode(
    receiver: library.RTCRtpReceiver, codec: Any, buffer: AudioPackets, frames: list[JitterFrame]
) -> None:
    """Decode these frames now, and what waits behind a hole when that is given up."""
    for frame in frames:
        frame.timestamp = receiver._RTCRtpReceiver__timestamp_mapper.map(frame.timestamp)  # type: ignore[attr-defined]
        receiver._RTCRtpReceiver__decoder_queue.put((codec, frame))  # type: ignore[attr-defined]
    if buffer.timer is not None:
        buffer.timer.cancel()
        buffer.timer = None
    wait = buffer.expires_in()
    if wait is not None:
        loop = asyncio.get_running_loop()
        buffer.timer = loop.call_later(
            wait, lambda: _decode(receiver, codec, buffer, buffer.expire())
        )


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


class _Vp8Encoder(aiortc.codecs.vpx.Vp8Encoder):
    """The library's, with our settings: it keeps a codec that fits the frame."""

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        if not _fits(self.codec, frame, self.target_bitrate):
            self.codec = make_vp8(frame.width, frame.height, self.target_bitrate)
        return super().encode(frame, force_keyframe)


class _H264Encoder(aiortc.codecs.h264.H264Encoder):
    """Likewise."""

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        if not _fits(self.codec, frame, self.target_bitrate):
            self.codec = make_h264(frame.width, frame.height, self.target_bitrate)
        return super().encode(frame, force_keyframe)


def _fits(codec: av.VideoCodecContext | None, frame: av.VideoFrame, bits_per_second: int) -> bool:
    if codec is None or (codec.width, codec.height) != (frame.width, frame.height):
        return False
    return abs(bits_per_second - (codec.bit_rate or 0)) <= 0.1 * (codec.bit_rate or 0)


def install_encoders() -> None:
    """Make every video encoder created from now on one of `server.webrtc.encoders`. May be called twice."""
    vars(aiortc.codecs).update(Vp8Encoder=_Vp8Encoder, H264Encoder=_H264Encoder)


def fix_video_bitrate(bits_per_second: int) -> None:
    """Make every video encoder start at this rate and stay there."""
    for codec in (aiortc.codecs.vpx, aiortc.codecs.h264):
        codec.MIN_BITRATE = codec.DEFAULT_BITRATE = codec.MAX_BITRATE = bits_per_second  # type: ignore[attr-defined]


def _addresses_with_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    return sorted({*_host_addresses(use_ipv4, use_ipv6), *(["127.0.0.1"] if use_ipv4 else [])})


def offer_loopback(wanted: bool) -> None:
    """Say whether connections offer 127.0.0.1, which the library leaves out."""
    aioice.ice.get_host_addresses = _addresses_with_loopback if wanted else _host_addresses
