"""Sender reports that put picture and sound on one line.

A receiver lines up picture and sound by what the sender reports say: which wall time belongs to
which time stamp. The library notes the time when the last packet was out, so a picture seems later
than its sound by the time it took to encode it, and every hold or catch-up bends the line of each
track for itself. Here both tracks report the same straight line: the wall time of time stamp 0
plus the time stamp.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiortc import RTCRtpSender
from aiortc.clock import datetime_to_ntp
from aiortc.rtp import RtcpSrPacket

from server.tracks import PacedTrack


def report_media_times(sender: RTCRtpSender, track: PacedTrack) -> None:
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
