"""What we do with the privates of aiortc and aioice, and that they are there."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aioice.ice
import aiortc.codecs.h264
import aiortc.codecs.vpx
import aiortc.rtcrtpreceiver
import pytest
from aiortc import RTCPeerConnection
from aiortc.clock import datetime_to_ntp
from aiortc.rtcrtpreceiver import TimestampMapper
from aiortc.rtp import RtcpSdesPacket, RtcpSenderInfo, RtcpSrPacket
from packaging.requirements import Requirement

from server.settings import ServerSettings
from server.webrtc.aiortc_internals import (
    ARRIVALS_KEPT,
    AudioPackets,
    fix_video_bitrate,
    install_mic_buffer,
    offer_loopback,
    packets_of,
    packets_received,
    report_media_times,
)
from server.webrtc.signaling import configure_library
from tests.server.microphone_way import packet

ROOT = Path(__file__).parents[2]
RECEIVER_NAMES = ("jitter_buffer", "codecs", "timestamp_mapper", "decoder_queue")


@pytest.mark.parametrize("name", ["aiortc", "aioice"])
def test_the_installed_version_is_the_minor_that_is_pinned(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [pin] = [r for text in project["dependencies"] if (r := Requirement(text)).name == name]
    installed = version(name)
    assert pin.specifier.contains(installed)
    major, minor, *_ = installed.split(".")
    assert not pin.specifier.contains(f"{major}.{int(minor) + 1}.0")


async def test_the_private_names_are_there() -> None:
    pc = RTCPeerConnection()
    try:
        pc.addTransceiver("audio")
        [transceiver] = pc.getTransceivers()
        receiver, sender = transceiver.receiver, transceiver.sender
        for name in RECEIVER_NAMES:
            assert hasattr(receiver, f"_RTCRtpReceiver__{name}"), name
        for name in ("_next_encoded_frame", "_send_rtcp"):
            assert hasattr(sender, name), name
        assert hasattr(receiver, "_handle_rtp_packet")
        assert callable(receiver.transport._get_stats)
    finally:
        await pc.close()
    for codec in (aiortc.codecs.vpx, aiortc.codecs.h264):
        for name in ("MIN_BITRATE", "DEFAULT_BITRATE", "MAX_BITRATE"):
            assert isinstance(getattr(codec, name), int), name
    assert callable(aiortc.rtcrtpreceiver.JitterBuffer)
    assert callable(aioice.ice.get_host_addresses)


async def test_packets_are_counted_from_none() -> None:
    pc = RTCPeerConnection()
    try:
        pc.addTransceiver("audio")
        assert packets_received(pc.getTransceivers()[0].receiver.transport) == 0
    finally:
        await pc.close()


def test_the_bitrate_is_fixed_for_every_codec() -> None:
    try:
        fix_video_bitrate(900_000)
        for codec in (aiortc.codecs.vpx, aiortc.codecs.h264):
            assert codec.MIN_BITRATE == codec.DEFAULT_BITRATE == codec.MAX_BITRATE == 900_000
    finally:
        configure_library(ServerSettings())


def test_the_loopback_is_offered_once_or_not_at_all() -> None:
    try:
        for _ in range(2):
            offer_loopback(True)
            addresses = aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=False)
            assert addresses.count("127.0.0.1") == 1
        offer_loopback(False)
        assert "127.0.0.1" not in aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=False)
    finally:
        configure_library(ServerSettings())


def test_the_adapter_gives_one_frame_and_keeps_the_rest_for_the_drain() -> None:
    now = [10.0]
    packets = AudioPackets(clock=lambda: now[0])
    assert packets.add(packet(1, 1000))[1].timestamp == 1000  # type: ignore[union-attr]
    now[0] = 10.990
    assert packets.add(packet(3, 2920)) == (False, None)
    now[0] = 11.0
    assert packets.add(packet(4, 3880))[1].timestamp == 2920  # type: ignore[union-attr]
    assert [frame.timestamp for frame in packets.more] == [3880]
    assert packets.arrived_at(0) == 10.0
    assert packets.arrived_at(2880) == 11.0
    assert packets.arrived_at(1920) == 10.990
    assert packets.arrived_at(960) is None


def test_an_empty_payload_does_not_end_the_decoder() -> None:
    packets = AudioPackets()
    packets.add(packet(1, 0))
    assert packets.add(packet(2, 960, b"")) == (False, None)


def timestamps(packets: AudioPackets, packet: SimpleNamespace) -> list[int]:
    """The frames that a packet lets through, by their time stamps."""
    _, first = packets.add(packet)
    return [] if first is None else [frame.timestamp for frame in (first, *packets.more)]


def test_an_empty_payload_takes_its_place_and_holds_nothing_up() -> None:
    packets = AudioPackets()
    given = [packet(1, 0), packet(2, 960, b""), packet(3, 1920), packet(5, 2880, b"")]
    assert [timestamps(packets, each) for each in given] == [[0], [], [1920], []]
    assert timestamps(packets, packet(4, 2880)) == [2880]  # what came late frees the empty one, too
    assert timestamps(packets, packet(6, 3840)) == [3840]
    assert (packets.packets.lost, packets.packets.late) == (0, 0)


def test_a_hole_is_given_up_with_the_next_packet_or_when_asked() -> None:
    now = [1.0]
    packets = AudioPackets(clock=lambda: now[0])
    given = [packet(1, 0), packet(3, 1920)]
    assert [timestamps(packets, each) for each in given] == [[0], []]
    assert packets.expires_in() == pytest.approx(0.010)
    assert packets.expire() == []
    now[0] = 1.020
    assert timestamps(packets, packet(4, 2880, b"")) == [1920]  # an empty payload, like any packet
    assert packets.expires_in() is None
    assert timestamps(packets, packet(6, 4800)) == []
    now[0] = 1.031
    assert packets.expires_in() == 0
    assert [frame.timestamp for frame in packets.expire()] == [4800]
    assert packets.arrivals.lost == 2


def test_a_packet_too_late_to_be_decoded_is_counted_and_makes_the_next_ones_wait() -> None:
    now = [1.0]
    packets = AudioPackets(clock=lambda: now[0])
    for n in (0, 1, 2, 4, 5, 7, 8):
        now[0] = 1 + 0.020 * n
        if timestamps(packets, packet(n, 960 * n)):
            packets.arrivals.add(960 * n, now[0])
    for n in (3, 6):
        now[0] += 0.020
        assert timestamps(packets, packet(n, 960 * n)) == []
    assert (packets.arrivals.late, packets.arrivals.lost) == (2, 0)
    assert packets.arrivals.delay_s >= 0.080
    assert timestamps(packets, packet(10, 9600)) == []
    assert packets.expires_in() > 0.040  # type: ignore[operator]


@pytest.mark.parametrize("step", [960, -960, -90_000, 2**31 + 960, 2**31 - 960])
def test_packets_are_known_by_the_time_stamps_that_the_library_gives_their_sound(step: int) -> None:
    """Across a wrap, and when a sender starts again at another time."""
    packets, mapper = AudioPackets(clock=lambda: 7.0), TimestampMapper()
    for start, sequence in (((1 << 32) - 1920, 0), (((1 << 32) - 1920 + step) % (1 << 32), 1000)):
        for n in range(4):
            stamp = (start + 960 * n) % (1 << 32)
            [decoded] = timestamps(packets, packet(sequence + n, stamp))
            pts = mapper.map(decoded)
            if n > 0 or sequence == 0:  # the first after a restart may be unknown
                assert packets.arrived_at(pts) == 7.0


def test_a_keep_alive_does_not_change_when_the_sound_of_its_time_stamp_came() -> None:
    now = [1.0]
    packets = AudioPackets(clock=lambda: now[0])
    packets.add(packet(1, 0))
    now[0] = 2.0
    packets.add(packet(2, 0, b""))
    assert packets.arrived_at(0) == 1.0


def test_arrival_times_are_bounded() -> None:
    packets = AudioPackets()
    for i in range(3 * ARRIVALS_KEPT):
        packets.add(packet(i, i * 960))
    kept = [packets.arrived_at(i * 960) is not None for i in range(3 * ARRIVALS_KEPT)]
    assert kept == [False] * 2 * ARRIVALS_KEPT + [True] * ARRIVALS_KEPT


async def test_installing_changes_audio_receivers_only() -> None:
    install_mic_buffer()
    install_mic_buffer()
    pc = RTCPeerConnection()
    try:
        pc.addTransceiver("audio")
        pc.addTransceiver("video")
        audio, video = (t.receiver for t in pc.getTransceivers())
        assert isinstance(packets_of(audio), AudioPackets)
        with pytest.raises(TypeError, match=r"a JitterBuffer; install_mic_buffer\(\) first"):
            packets_of(video)
    finally:
        await pc.close()


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
