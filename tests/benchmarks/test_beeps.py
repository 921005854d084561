from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.beeps import (
    Beep,
    Clocks,
    Shown,
    SoundClock,
    clocks,
    full_stamp,
    longest_gap_s,
    match,
    objections,
    percentiles,
    read_frames,
    write_beeps,
)

NOW = 1_790_000_000_000.0  # a wall clock in ms, beyond 32 bits


def event(number: int, at: float, sample: int = 0) -> dict[str, Any]:
    """A beep captured at `at` ms: packet after 12, samples after 2, frame after 110, sent after 3."""
    times = [(at + d) / 1000 for d in (12, 14, 124, 127)]
    return {
        "id": number,
        "session": "s",
        "sample": sample,
        **dict(zip(("mic_packet", "pcm", "frame_made", "frame_sent"), times, strict=True)),
    }


def frame(shown: float, beep: int = 0, presented: int = 1) -> Shown:
    return Shown(shown, shown - 40, presented, shown - 70, 7, beep)


def test_written_beeps_are_short_loud_and_never_evenly_spaced(tmp_path: Path) -> None:
    write_beeps(tmp_path / "b.wav", 20)
    with wave.open(str(tmp_path / "b.wav")) as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (1, 2, 48_000)
        pcm = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2") / 32768
    loud = np.flatnonzero(np.abs(pcm) > 0.1)
    begins = loud[np.diff(loud, prepend=-48_000) > 9600]
    gaps_s = np.diff(begins) / 48_000
    assert len(begins) >= 16
    assert gaps_s.min() >= 0.99
    assert gaps_s.max() <= 1.21
    assert gaps_s.std() > 0.02
    assert (np.abs(pcm) > 0.1).mean() < 0.04


def test_a_sound_clock_ignores_chunks_that_came_late() -> None:
    late = [0, 30, 5, 80, 0, 12, 0, 3, 55, 1]
    chunks = [(NOW + 10 * i + wait, 480 * i, 480) for i, wait in enumerate(late)]
    clock = SoundClock(chunks, 48_000, device=False)
    assert clock.wall_ms(480 * 3 + 48) == pytest.approx(NOW + 31, abs=1e-3)


def test_a_microphone_sample_is_older_than_the_chunk_that_brought_it() -> None:
    chunks = [(NOW + 10 * i, 480 * i, 480) for i in range(20)]
    clock = SoundClock(chunks, 48_000, device=True)
    assert clock.wall_ms(480 * 4 + 479) == pytest.approx(NOW + 40, abs=0.1)
    assert clock.wall_ms(480 * 4) == pytest.approx(NOW + 30, abs=0.1)


def test_a_sound_clock_follows_a_device_that_runs_slow() -> None:
    chunks = [(NOW + 10.2 * i, 480 * i, 480) for i in range(3000)]  # 2 % slow for 30 s
    clock = SoundClock(chunks, 48_000, device=False)
    assert clock.wall_ms(480 * 1500) == pytest.approx(NOW + 10.2 * 1500, abs=70)


def test_a_sound_clock_without_sound_says_so() -> None:
    with pytest.raises(ValueError, match="at least one chunk"):
        SoundClock([], 48_000, device=True)


def test_a_beep_is_followed_through_every_leg() -> None:
    frames = [frame(NOW + 1000 + 40 * i) for i in range(10)]
    frames.append(frame(NOW + 1230, beep=1))
    frames.append(frame(NOW + 1270, beep=1))  # shown twice: the first counts
    (beep,) = match([NOW + 1000], [event(1, NOW + 1000, sample=960)], frames, [NOW + 1256])
    assert beep.glass_to_glass_ms == pytest.approx(230, abs=0.01)
    assert beep.into_frame == pytest.approx(20)
    assert beep.av_skew_ms == pytest.approx(6, abs=0.01)
    legs = beep.legs_ms()
    assert legs["sound_to_frame"] == pytest.approx(110, abs=0.01)
    assert sum(legs.values()) == pytest.approx(beep.glass_to_glass_ms)


def test_legs_still_add_up_where_the_browser_hides_the_arrival() -> None:
    beep = Beep(0, 12, 14, 124, 127, None, 230, None, 0)
    assert sum(beep.legs_ms().values()) == beep.glass_to_glass_ms
    assert beep.av_skew_ms is None


def test_beeps_are_told_apart_by_number_and_by_time() -> None:
    events = [event(255, NOW), event(1, NOW + 1100), event(255, NOW + 255 * 1100)]
    frames = [frame(NOW + 200, 255), frame(NOW + 1290, 1), frame(NOW + 255 * 1100 + 210, 255)]
    found = match([NOW, NOW + 1100, NOW + 255 * 1100], events, frames, [])
    assert [round(beep.glass_to_glass_ms) for beep in found] == [200, 190, 210]


def test_a_beep_that_was_lost_on_the_way_is_left_out() -> None:
    lost = event(2, NOW + 1100)
    lost["frame_sent"] = None
    events = [event(1, NOW), lost, event(3, NOW + 2200), event(4, NOW + 9000)]
    frames = [frame(NOW + 200, 1), frame(NOW + 9200, 4)]  # 3 was never shown
    found = match([NOW, NOW + 1100, NOW + 2200], events, frames, [])  # 4 was never captured
    assert len(found) == 1


def test_frames_without_a_readable_code_are_kept_but_carry_no_beep() -> None:
    stamp = int(NOW) & 0xFFFFFFFF
    rows: list[list[Any]] = [
        [NOW + 60, NOW + 61, NOW + 30, 5, [17, stamp, 1, 9]],
        [NOW + 100, NOW + 101, None, 6, None],
        [NOW + 140, NOW + 141, NOW + 99, 7, [18, stamp, 0, 9]],
    ]
    beeping, unread, plain = read_frames(rows)
    assert (beeping.beep, beeping.counter, beeping.stamp) == (9, 17, int(NOW))
    assert (unread.beep, unread.counter, unread.stamp) == (0, None, None)
    assert plain.beep == 0


@pytest.mark.parametrize("away", [-500, 0, 500])
def test_a_stamp_of_32_bits_finds_its_full_time_across_the_wrap(away: int) -> None:
    wrap = 417 * 2**32
    assert full_stamp((wrap + away) % 2**32, near=wrap - 20) == wrap + away


def test_percentiles_of_nothing_are_not_numbers() -> None:
    assert percentiles([]) == {"p50": None, "p95": None, "max": None}
    assert percentiles([float(x) for x in range(101)]) == {"p50": 50.0, "p95": 95.0, "max": 100.0}


def test_the_longest_gap_is_between_shown_frames() -> None:
    assert longest_gap_s([frame(NOW), frame(NOW + 40), frame(NOW + 640)]) == pytest.approx(0.6)
    assert longest_gap_s([]) == float("inf")


def test_clocks_are_measured_against_the_wall() -> None:
    before = {"at": NOW, "packetsSent": 100, "audio.totalSamplesReceived": 48_000}
    after = {"at": NOW + 10_000, "packetsSent": 598, "audio.totalSamplesReceived": 528_000}
    found = clocks(before, after)
    assert found == Clocks(microphone=0.996, playout=1.0)
    assert found.healthy


@pytest.mark.parametrize("slow", [Clocks(0.994, 1.0), Clocks(1.0, 0.9), Clocks(0.99, 0.99)])
def test_one_slow_clock_spoils_a_run(slow: Clocks) -> None:
    assert not slow.healthy


def test_a_good_run_meets_no_objection() -> None:
    assert objections(Clocks(0.999, 1.0), others_cores=0.1, connections=1) == []


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (objections(Clocks(0.98, 1.0), 0.0, 1), "clock"),
        (objections(Clocks(1.0, 1.0), 1.2, 1), "other programs took 1.2"),
        (objections(Clocks(1.0, 1.0), 0.0, 2), "connected 2 times"),
    ],
)
def test_a_spoiled_run_says_why(found: list[str], word: str) -> None:
    assert len(found) == 1
    assert word in found[0]
