"""The microphone's receive buffer: order, holes, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.sound.receive import MAX_JUMP, MicJitterBuffer

NEVER = 1e9


def feed(
    buffer: MicJitterBuffer[int], sequences: list[int], wait: float = NEVER
) -> list[list[int]]:
    """Add packets one second apart, each worth waiting `wait` seconds for what is before it."""
    return [buffer.add(s % 65536, s, now, now + wait) for now, s in enumerate(sequences)]


def test_packets_in_order_leave_at_once() -> None:
    assert feed(MicJitterBuffer(), [5, 6, 7]) == [[5], [6], [7]]


def test_a_hole_is_held_until_its_time_is_over() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    assert feed(buffer, [1, 3, 4], wait=2.5) == [[1], [], []]
    assert buffer.expires_at == 1 + 2.5
    assert buffer.expire(3.4) == []
    assert buffer.expire(3.5) == [3, 4]
    assert buffer.expires_at is None
    assert (buffer.lost, buffer.late) == (1, 0)


def test_a_packet_that_comes_after_that_ends_the_wait_as_well() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    assert feed(buffer, [1, 3, 4, 5], wait=1.5) == [[1], [], [], [3, 4, 5]]


def test_each_hole_has_its_own_time() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    buffer.add(1, 1, 0.0, 0.0)
    buffer.add(6, 6, 0.1, 0.9)
    buffer.add(3, 3, 0.2, 0.5)
    assert buffer.expire(0.5) == [3]
    assert buffer.expires_at == 0.9
    assert buffer.expire(1.0) == [6]
    assert buffer.lost == 3


def test_what_is_worth_no_wait_is_handed_on_at_once() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    assert feed(buffer, [1, 5], wait=-1) == [[1], [5]]
    assert buffer.lost == 3


def test_late_packets_fill_their_holes() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    assert feed(buffer, [1, 4, 3, 6, 2, 5]) == [[1], [], [], [], [2, 3, 4], [5, 6]]
    assert (buffer.lost, buffer.late) == (0, 0)


def test_a_packet_later_than_that_is_late_not_lost_and_one_that_comes_twice_is_neither() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    feed(buffer, [1, 4], wait=-1)
    assert buffer.lost == 2
    assert feed(buffer, [2, 4, 2, 5]) == [[], [], [], [5]]
    assert (buffer.lost, buffer.late) == (1, 1)


def test_the_sequence_number_wraps() -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    given = [65534, 65535, 65536, 65539, 65538, 65537]
    assert feed(buffer, given) == [[65534], [65535], [65536], [], [], [65537, 65538, 65539]]


@pytest.mark.parametrize("jump", [102, 20_000, -102, -30_000])
def test_a_sender_that_starts_again_is_followed_at_once(jump: int) -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    buffer.add(40_000, 0, 0.0, NEVER)
    assert buffer.add(40_000 + jump, 1, 0.0, NEVER) == [1]
    assert buffer.add(40_001 + jump, 2, 0.0, NEVER) == [2]
    assert buffer.lost == 0


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(-3, 9)), min_size=1, max_size=200),
    st.integers(0, 65535),
)
def test_packets_leave_in_rising_order_once_and_each_is_accounted_for(
    steps: list[tuple[int, int]], start: int
) -> None:
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    out: list[int] = []
    for now, (step, wait) in enumerate([(0, 0), *steps]):
        out += buffer.add((start + step) % 65536, step, now, now + wait)
        assert buffer.expires_at is None or buffer.expires_at > now
    out += buffer.expire(NEVER)
    given_steps = {0} | {step for step, _ in steps}
    assert out == sorted(set(out))
    assert set(out) <= given_steps
    assert buffer.late == len(given_steps) - len(out)
    assert buffer.lost == max(out) + 1 - len(given_steps)


@given(st.lists(st.integers(1, MAX_JUMP), max_size=300))
def test_what_waits_is_bounded(ahead: list[int]) -> None:
    """However many packets come and however long each may wait."""
    buffer: MicJitterBuffer[int] = MicJitterBuffer()
    buffer.add(0, 0, 0.0, NEVER)
    for sequence in ahead:
        buffer.add(1 + sequence, sequence, 0.0, NEVER)
    assert len(buffer.expire(NEVER)) <= MAX_JUMP
