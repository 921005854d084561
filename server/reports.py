"""Sender reports that tell the truth about when a piece left by the one clock.

A receiver lines up picture and sound by what the sender reports say: which wall time belongs to
which time stamp. The library notes the time when the last packet was out, so a picture seems later
than its sound by the time it took to encode it. Here both are reported by their time to leave.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiortc import RTCRtpSender
from aiortc.clock import datetime_to_ntp
from aiortc.rtp import RtcpSrPacket

from server.tracks import PacedTrack


def report_release_times(sender: RTCRtpSender, track: PacedTrack) -> None:
    """Make the reports of `sender`, which sends `track`, carry the track's release times."""
    next_frame, send = sender._next_encoded_frame, sender._send_rtcp
    released: list[int] = []

    async def noted(codec: Any) -> Any:
        frame = await next_frame(codec)
        if frame is not None and track.released_at is not None:
            released[:] = [datetime_to_ntp(datetime.fromtimestamp(track.released_at, UTC))]
        return frame

    async def stamped(packets: list[Any]) -> None:
        for packet in packets:
            if isinstance(packet, RtcpSrPacket) and released:
                packet.sender_info.ntp_timestamp = released[0]
        await send(packets)

    sender._next_encoded_frame = noted  # type: ignore[method-assign]
    sender._send_rtcp = stamped  # type: ignore[method-assign]
