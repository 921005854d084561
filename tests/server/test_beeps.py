"""Finding beeps and keeping their times."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.live.beeps import BEEPS_KEPT, BeepFinder, BeepLog
from server.sound.intake import Pcm48


def beeps_at(places: list[int], length: int = 120_000, loudness: int = 12_000) -> Pcm48:
    pcm = np.zeros(length, dtype=np.int16)
    burst = np.sin(2 * np.pi * 2000 * (np.arange(1440) + 6) / 48_000) * loudness
    for place in places:
        pcm[place : place + 1440] = burst
    return pcm


def test_each_beep_is_found_once_where_it_begins() -> None:
    assert BeepFinder().push(beeps_at([0, 20_000, 60_000])) == [0, 20_000, 60_000]


@given(st.lists(st.integers(1, 5000), max_size=60))
def test_what_is_found_does_not_depend_on_how_the_sound_was_split(cuts: list[int]) -> None:
    pcm = beeps_at([5000, 40_000, 100_000])
    finder, at, found = BeepFinder(), 0, []
    for cut in [*cuts, len(pcm)]:
        found += finder.push(pcm[at : at + cut])
        at += cut
    assert found == [5000, 40_000, 100_000]


def test_quiet_sound_and_a_beep_right_after_another_do_not_count() -> None:
    assert BeepFinder().push(beeps_at([5000], loudness=3000)) == []
    assert BeepFinder().push(beeps_at([5000, 5000 + 1440 + 9000])) == [5000]


def test_the_loudest_negative_sample_counts() -> None:
    pcm = np.zeros(100, dtype=np.int16)
    pcm[50] = -32768
    assert BeepFinder().push(pcm) == [50]


def test_the_log_numbers_beeps_and_gives_wall_times() -> None:
    log = BeepLog()
    beep = log.add("s", 4201, 1920)
    beep.mic_packet = time.monotonic()
    [event] = log.events()
    assert (event["id"], event["sample"], event["frame"], event["session"]) == (1, 4201, 2, "s")
    assert abs(event["mic_packet"] - time.time()) < 1
    assert event["frame_sent"] is None


def test_the_log_is_bounded_and_numbers_fit_a_byte() -> None:
    log = BeepLog()
    ids = {log.add("s", 0, 1920).id for _ in range(3 * BEEPS_KEPT)}
    assert ids == set(range(1, 256))
    assert len(log.events()) == BEEPS_KEPT
