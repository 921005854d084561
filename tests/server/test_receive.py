"""The microphone's receive buffer: order, holes, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.receive import MicJitterBuffer


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
    for added, step in enumerate([0, *steps], start=1):
        out += buffer.add((start + step) % 65536, step)
        assert added - buffer.late - len(out) < buffer.hold  # what waits
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
