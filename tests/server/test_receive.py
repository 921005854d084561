"""The microphone's receive buffer: order, holes, bounds."""

from __future__ import annotations

from types import SimpleNamespace

import aiortc.rtcrtpreceiver as library
import pytest
from aiortc import RTCPeerConnection
from aiortc.jitterbuffer import JitterBuffer
from hypothesis import given
from hypothesis import strategies as st

from server.receive import (
    ARRIVALS_KEPT,
    AudioPackets,
    MicJitterBuffer,
    install_mic_buffer,
    packets_of,
)


def feed(buffer: MicJitterBuffer[int], sequences: list[int]) -> list[list[int]]:
    return [buffer.add(s % 65536, s) for s in sequences]


def test_packets_in_order_leave_at_once() -> None:
    assert feed(MicJitterBuffer(), [5, 6, 7]) == [[5], [6], [7]]


def test_a_hole_is_held_for_two_packets_then_given_up() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    assert feed(buffer, [1, 3, 4, 5]) == [[1], [], [3, 4], [5]]
    assert buffer.lost == 1


def test_one_late_packet_fills_its_hole() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    assert feed(buffer, [1, 3, 2, 4]) == [[1], [], [2, 3], [4]]
    assert (buffer.lost, buffer.late) == (0, 0)


def test_a_packet_later_than_that_is_dropped() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    assert feed(buffer, [1, 3, 4, 2, 4, 5]) == [[1], [], [3, 4], [], [], [5]]
    assert buffer.late == 2


def test_a_burst_of_losses_costs_no_lasting_delay() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    out = feed(buffer, [0, 1, 5, 6, 7, 8])
    assert out == [[0], [1], [], [5, 6], [7], [8]]
    assert buffer.lost == 3


def test_the_sequence_number_wraps() -> None:
    assert feed(MicJitterBuffer(), [65534, 65535, 65536, 65538, 65537]) == [
        [65534],
        [65535],
        [65536],
        [],
        [65537, 65538],
    ]


@pytest.mark.parametrize("jump", [102, 20_000, -102, -30_000])
def test_a_sender_that_starts_again_is_followed_at_once(jump: int) -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    buffer.add(40_000, 0)
    assert buffer.add(40_000 + jump, 1) == [1]
    assert buffer.add(40_001 + jump, 2) == [2]


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=200),
    st.integers(0, 65535),
)
def test_packets_leave_in_rising_order_once_and_few_wait(steps: list[int], start: int) -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    out: list[int] = []
    for step in [0, *steps]:
        out += buffer.add((start + step) % 65536, step)
        assert len(buffer._waiting) < buffer.hold
    assert out == sorted(set(out))
    assert set(out) <= {0, *steps}


@given(st.permutations(range(3)), st.integers(3, 12))
def test_swapped_neighbours_lose_nothing(order: list[int], groups: int) -> None:
    """A packet overtaken by at most one other comes out in its place."""
    sequences = [0]
    for group in range(groups):
        pair = [1 + 2 * group, 2 + 2 * group]
        sequences += pair if order[group % 3] else pair[::-1]
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    out = [item for ready in feed(buffer, sequences) for item in ready]
    assert out == sorted(sequences)


def packet(sequence: int, timestamp: int, payload: bytes = b"x") -> SimpleNamespace:
    return SimpleNamespace(
        sequence_number=sequence, timestamp=timestamp, payload=payload, _data=payload
    )


def test_the_adapter_gives_one_frame_and_keeps_the_rest_for_the_drain() -> None:
    now = [10.0]
    packets = AudioPackets(clock=lambda: now[0])
    assert packets.add(packet(1, 1000))[1].timestamp == 1000  # type: ignore[union-attr]
    assert packets.add(packet(3, 2920)) == (False, None)
    now[0] = 11.0
    assert packets.add(packet(4, 3880))[1].timestamp == 2920  # type: ignore[union-attr]
    assert [frame.timestamp for frame in packets.more] == [3880]
    assert packets.arrived_at(0) == 10.0
    assert packets.arrived_at(2880) == 11.0
    assert packets.arrived_at(960) is None


def test_an_empty_payload_does_not_end_the_decoder() -> None:
    packets = AudioPackets()
    packets.add(packet(1, 0))
    assert packets.add(packet(2, 960, b"")) == (False, None)


def test_arrival_times_are_bounded() -> None:
    packets = AudioPackets()
    for i in range(3 * ARRIVALS_KEPT):
        packets.add(packet(i, i * 960))
    assert len(packets._arrivals) == ARRIVALS_KEPT


async def test_installing_changes_audio_receivers_only() -> None:
    install_mic_buffer()
    install_mic_buffer()
    pc = RTCPeerConnection()
    try:
        pc.addTransceiver("audio")
        pc.addTransceiver("video")
        audio, video = (t.receiver for t in pc.getTransceivers())
        assert isinstance(packets_of(audio), AudioPackets)
        assert isinstance(video._RTCRtpReceiver__jitter_buffer, JitterBuffer)
        with pytest.raises(TypeError, match="install_mic_buffer"):
            packets_of(video)
        assert library.RTCRtpReceiver._handle_rtp_packet.__module__ == "server.receive"
    finally:
        await pc.close()
