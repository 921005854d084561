"""Sender reports carry the time of the one clock."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from aiortc.clock import datetime_to_ntp
from aiortc.rtp import RtcpSdesPacket, RtcpSenderInfo, RtcpSrPacket

from server.reports import report_media_times


class Sender:
    """The two methods of the library's sender that matter."""

    def __init__(self, frames: list[Any]) -> None:
        self.frames, self.sent = frames, []

    async def _next_encoded_frame(self, codec: Any) -> Any:
        return self.frames.pop(0)

    async def _send_rtcp(self, packets: list[Any]) -> None:
        self.sent += packets


def report(ntp: int = 5) -> RtcpSrPacket:
    return RtcpSrPacket(ssrc=1, sender_info=RtcpSenderInfo(ntp, 90, 1, 1))


async def test_a_report_says_the_media_time_of_the_last_encoded_piece() -> None:
    sender, track = Sender(["frame", None, "frame"]), SimpleNamespace(media_time=None)
    report_media_times(sender, track)  # type: ignore[arg-type]
    await sender._send_rtcp([report(7)])
    assert sender.sent[-1].sender_info.ntp_timestamp == 7  # nothing sent yet: left alone
    track.media_time = 1_800_000_000.25
    assert await sender._next_encoded_frame("codec") == "frame"
    want = datetime_to_ntp(datetime.fromtimestamp(1_800_000_000.25, UTC))
    track.media_time = 1_800_000_001.0
    assert await sender._next_encoded_frame("codec") is None  # nothing came of that one
    await sender._send_rtcp([report(), RtcpSdesPacket(chunks=[])])
    assert sender.sent[-2].sender_info.ntp_timestamp == want
    assert sender.sent[-2].sender_info.rtp_timestamp == 90
    await sender._next_encoded_frame("codec")
    await sender._send_rtcp([report()])
    assert sender.sent[-1].sender_info.ntp_timestamp - want == 3 << 30  # 0.75 s
