"""Concealment, the microphone's time line, and the way down to 16 kHz."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.sound.intake import (
    FADE_SAMPLES,
    MAX_GAP,
    PACKET_SAMPLES,
    SOUND_RATE_HZ,
    Downsampler,
    Intake,
    Pcm48,
    conceal,
    to_mono,
)

PACKET_S = PACKET_SAMPLES / SOUND_RATE_HZ


def tone(samples: int, hz: float = 440, start: int = 0) -> Pcm48:
    at = (np.arange(samples) + start) / SOUND_RATE_HZ
    return np.asarray(np.sin(2 * np.pi * hz * at) * 20_000, dtype=np.int16)


def test_a_gap_begins_where_the_sound_stopped_and_fades_to_silence() -> None:
    tail = tone(960)
    filled = conceal(tail, 4800)
    assert filled.shape == (4800,)
    assert abs(int(filled[0]) - int(tail[-1])) < 100
    assert np.abs(filled[:480]).max() > 10_000
    assert not filled[FADE_SAMPLES:].any()
    steps = np.abs(np.diff(filled.astype(int)))
    assert steps.max() <= np.abs(np.diff(tail.astype(int))).max() + 20  # no click


def test_a_gap_filled_in_pieces_is_the_gap_filled_at_once() -> None:
    tail = tone(960)
    pieces = [conceal(tail, 700, faded=700 * i) for i in range(5)]
    np.testing.assert_array_equal(np.concatenate(pieces), conceal(tail, 3500))


def test_nothing_heard_is_filled_with_silence() -> None:
    assert not conceal(np.zeros(0, dtype=np.int16), 960).any()
    assert conceal(tone(960), -3).shape == (0,)


def speak(intake: Intake, numbers: list[int], now: float = 0.0, pts: int = 0) -> list[Pcm48]:
    """Push the packets with these numbers, each at its own time."""
    return [
        intake.push(
            pts + n * PACKET_SAMPLES, tone(960, start=n * PACKET_SAMPLES), now + (n + 1) * PACKET_S
        )
        for n in numbers
    ]


def test_an_unbroken_microphone_comes_through_unchanged() -> None:
    out = np.concatenate(speak(Intake(0.0), list(range(10)), pts=12_345))
    np.testing.assert_array_equal(out, tone(9600))


@given(st.sets(st.integers(1, 48), max_size=20))
def test_lost_packets_leave_the_sound_after_them_in_place(lost: set[int]) -> None:
    numbers = [n for n in range(50) if n not in lost]
    out = np.concatenate(speak(Intake(0.0), numbers))
    heard = np.repeat([n not in lost for n in range(50)], PACKET_SAMPLES)
    np.testing.assert_array_equal(out[heard], tone(50 * PACKET_SAMPLES)[heard])


def test_a_lost_packet_is_counted_and_heard_as_more_of_the_same() -> None:
    intake = Intake(0.0)
    out = np.concatenate(speak(intake, [0, 1, 3]))
    assert intake.concealed == PACKET_SAMPLES
    assert np.abs(out[1920:2880]).mean() > 5_000


def test_silence_flows_in_real_time_before_there_is_a_microphone() -> None:
    intake = Intake(100.0)
    total = 0
    for tick in range(1, 101):
        now = 100.0 + tick * 0.0173
        total += len(intake.tick(now))
        assert 0 <= (now - 100.0) * SOUND_RATE_HZ - total < PACKET_SAMPLES + 1


def test_silence_waits_for_a_microphone_that_is_merely_a_little_late() -> None:
    intake = Intake(0.0)
    speak(intake, [0])
    assert len(intake.tick(0.02 + 0.079)) == 0
    assert len(intake.tick(0.02 + 0.081)) == 4 * PACKET_SAMPLES


def test_packets_that_were_replaced_by_silence_are_dropped_when_they_come() -> None:
    intake = Intake(0.0)
    speak(intake, [0])
    filled = intake.tick(0.121)
    assert len(filled) == 5 * PACKET_SAMPLES
    late = [intake.push(n * PACKET_SAMPLES, tone(960), 0.13) for n in range(1, 7)]
    assert [len(pcm) > 0 for pcm in late] == [False] * 3 + [True] * 3
    assert 3 * PACKET_SAMPLES <= intake.late <= intake.discarded < 4 * PACKET_SAMPLES


def test_a_microphone_that_stays_late_is_heard_again_after_200_ms() -> None:
    intake = Intake(0.0)
    speak(intake, [0])
    intake.tick(0.52)
    lengths = [
        len(intake.push(n * PACKET_SAMPLES, tone(960), 0.53 + n * PACKET_S)) for n in range(1, 15)
    ]
    assert lengths[:9] == [0] * 9
    assert all(lengths[9:])


def test_a_microphone_back_from_mute_starts_at_the_present() -> None:
    intake = Intake(0.0)
    speak(intake, [0, 1])
    for tick in range(1, 300):
        intake.tick(0.04 + tick * PACKET_S)
    fed = intake.fed
    out = intake.push(2 * PACKET_SAMPLES, tone(960), 6.05)  # its time stamps stood still
    assert len(out) == PACKET_SAMPLES
    assert intake.fed == fed + PACKET_SAMPLES


@pytest.mark.parametrize("jump", [SOUND_RATE_HZ, -SOUND_RATE_HZ, 2**31])
def test_a_wild_time_stamp_neither_adds_nor_loses_a_second(jump: int) -> None:
    intake = Intake(0.0)
    speak(intake, [0, 1])
    assert len(intake.push(1920 + jump, tone(960), 0.06)) == PACKET_SAMPLES


def test_a_process_that_slept_does_not_make_up_for_it() -> None:
    intake = Intake(0.0)
    intake.tick(0.02)
    assert len(intake.tick(60.0)) == PACKET_SAMPLES
    assert len(intake.tick(60.02)) == PACKET_SAMPLES


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=5, max_size=120),
    st.integers(0, 1 << 31),
)
def test_the_samples_follow_the_clock_whatever_arrives(
    events: list[tuple[bool, int]], pts: int
) -> None:
    """Packets lost, late or absent at random: never half a second from the clock."""
    intake, now, number, fed = Intake(0.0), 0.0, 0, 0
    for heard, wait_ms in events:
        now += wait_ms / 1000
        number = max(number + 1, int(now / PACKET_S))
        if heard and number * PACKET_S <= now + PACKET_S:
            fed += len(intake.push(pts + number * PACKET_SAMPLES, tone(960), now))
        fed += len(intake.tick(now))
        assert abs(fed / SOUND_RATE_HZ - now) < 0.5
    assert fed == intake.fed


@given(
    st.lists(
        st.tuples(st.integers(-(2**33), 2**33), st.integers(0, 6000), st.floats(0, 3)),
        max_size=30,
    )
)
def test_packets_of_any_time_stamp_and_length_add_little_more_than_themselves(
    packets: list[tuple[int, int, float]],
) -> None:
    intake, now = Intake(0.0), 0.0
    for pts, length, wait in packets:
        now += wait
        out = intake.push(pts, tone(length), now)
        assert len(out) <= length + MAX_GAP
        assert out.dtype == np.int16


@pytest.mark.parametrize("length", [120, 480, 1920, 2880, 5760])
def test_packets_of_other_lengths_come_through_unchanged(length: int) -> None:
    intake, out = Intake(0.0), []
    for i in range(20):
        now = (i + 1) * length / SOUND_RATE_HZ
        out.append(intake.push(i * length, tone(length, start=i * length), now))
    np.testing.assert_array_equal(np.concatenate(out), tone(20 * length))


def test_sound_longer_than_its_time_stamps_say_stays_on_the_line() -> None:
    """A sender that puts 120 ms into packets stamped 20 ms apart gains nothing by it."""
    intake = Intake(0.0)
    for i in range(100):
        intake.push(i * PACKET_SAMPLES, tone(5760), (i + 1) * PACKET_S)
    assert intake.fed <= 100 * PACKET_SAMPLES + 5760 * (1 + 100 // 10)


def test_downsampling_gives_one_sample_for_three_at_once() -> None:
    down = Downsampler()
    assert {len(down.push(tone(960, start=i * 960))) for i in range(50)} == {320}


@given(st.lists(st.integers(0, 3000), max_size=20))
def test_downsampling_does_not_depend_on_how_the_sound_was_split(cuts: list[int]) -> None:
    pcm = tone(sum(cuts), hz=700)
    down, at, parts = Downsampler(), 0, [np.zeros(0, dtype=np.float32)]
    for cut in cuts:
        parts.append(down.push(pcm[at : at + cut]))
        at += cut
    np.testing.assert_array_equal(np.concatenate(parts), Downsampler().push(pcm))


def test_downsampling_keeps_speech_and_removes_what_would_fold_down() -> None:
    heard = Downsampler().push(tone(48_000, hz=1000))[800:-800]
    want = np.sin(2 * np.pi * 1000 * (np.arange(16_000) - 16) / 16_000)[800:-800] * 20_000 / 32_768
    assert np.abs(heard - want).max() < 0.01
    folded = Downsampler().push(tone(48_000, hz=12_000))[800:-800]
    assert np.abs(folded).max() < 0.01


def test_downsampling_refuses_other_sound() -> None:
    with pytest.raises(ValueError, match="wants int16"):
        Downsampler().push(np.zeros(960, dtype=np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_decoded_packets_become_mono(layout: str) -> None:
    channels = 1 if layout == "mono" else 2
    data = np.repeat(tone(960)[:, None], channels, axis=1).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(data, format="s16", layout=layout)
    frame.time_base = Fraction(1, SOUND_RATE_HZ)
    np.testing.assert_array_equal(to_mono(frame), tone(960))
