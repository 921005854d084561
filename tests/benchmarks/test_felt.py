"""What the doors benchmark makes of sound and frames that were received."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from benchmarks.doors_plot import BAD, BAR, GOOD, draw
from benchmarks.felt import AT_REST, LOUD, Seen, Sound, feel, heard_until, summary
from benchmarks.framework_clients import Player
from benchmarks.voice import voice

RATE = 48_000


def received(begin: float, end: float, *, parted_until: float) -> tuple[list[Sound], list[Seen]]:
    sounds = [Sound(t, 480, 0.2 if begin <= t < end else 0.0) for t in range(0, 5000, 10)]
    frames = [
        Seen(t, t // 40, 0.05 if begin <= t < parted_until else 0.001, begin - 80 <= t < end)
        for t in range(0, 5000, 40)
    ]
    return sounds, frames


def test_an_utterance_that_is_cut_off_is_judged_by_what_was_received() -> None:
    sounds, frames = received(1200, 3100, parted_until=3150)
    felt = feel(sounds, frames, said=1000, cut=3000, position=1880, rate_hz=RATE, heard=1900)
    assert (felt.first_sound, felt.first_frame, felt.open_lips) == (200, 120, 200)
    assert (felt.old_sound, felt.at_rest) == (100, 160)
    assert felt.position_error == 20
    assert felt.old_frames == 1  # at 3120


def test_what_was_never_heard_has_no_figures() -> None:
    sounds, frames = received(9000, 9000, parted_until=9000)
    felt = feel(sounds, frames, said=1000, cut=3000, position=0.0, rate_hz=RATE, heard=None)
    assert (felt.first_sound, felt.old_sound, felt.position_error) == (None, None, None)
    assert "first_sound" not in summary([felt])


def test_the_summary_counts_what_it_is_made_of() -> None:
    trials = []
    for late in range(10):
        sounds, frames = received(1200 + late, 3000, parted_until=3000)
        trials.append(
            feel(sounds, frames, said=1000, cut=3000, position=None, rate_hz=RATE, heard=1800)
        )
    figures = summary(trials)
    assert figures["trials"] == 10
    assert figures["first_sound"]["of"] == 10
    assert "position_error" not in figures


@pytest.mark.parametrize("stretched", [0.97, 1.0, 1.04])
def test_how_far_a_listener_came_is_found_in_what_was_said(stretched: float) -> None:
    said, until_ms = voice(10.0), 2345
    begin, end = 500 * RATE // 1000, until_ms * RATE // 1000
    rng = np.random.default_rng(0)
    last = 400 * RATE // 1000  # a receiver stretches here and there, not to the end
    times = np.arange(begin, end - last, 1 / stretched)
    heard = np.concatenate([np.interp(times, np.arange(len(said)), said), said[end - last : end]])
    silence = np.zeros(RATE // 2)
    received = np.concatenate([silence, heard * 0.8, silence]) + rng.normal(
        0, 60, len(heard) + RATE
    )
    found = heard_until(received.astype(np.int16), said, RATE)
    assert found == pytest.approx(until_ms, abs=3)
    assert heard_until(np.zeros(RATE, np.int16), said, RATE) is None


def test_a_player_knows_what_its_listener_heard() -> None:
    player = Player()
    player.play(voice(0.1), RATE, at=7.0)
    player.play(np.zeros(4800, np.int16), RATE, at=7.1)
    player.play(voice(0.1), RATE, at=7.2)
    assert player.heard_ms(7.255) == pytest.approx(155)
    assert player.heard_ms(9.0) == pytest.approx(200)
    player.begin()
    assert player.heard_ms(9.0) == 0


def test_the_made_up_voice_never_pauses() -> None:
    pcm = voice(3.0)
    assert len(pcm) == 3 * RATE
    peaks = np.abs(pcm.astype(int))[: len(pcm) // 480 * 480].reshape(-1, 480).max(axis=1) / 32768
    assert peaks.min() > 2 * LOUD
    assert peaks.max() < 0.5
    assert pytest.approx(0.012) == AT_REST


def test_the_picture_of_the_benchmark_tells_good_from_missed(tmp_path: Path) -> None:
    sounds, frames = received(1200, 3100, parted_until=3150)
    figures = summary(
        [feel(sounds, frames, said=1000, cut=3000, position=1880, rate_hz=RATE, heard=1900)]
    )
    rows = [{"door": "One", **figures}, {"door": "Two", **figures, "old_sound": None}]
    draw(rows, "said", tmp_path / "doors.png")
    image = Image.open(tmp_path / "doors.png").convert("RGB")
    colours = {colour for _, colour in image.getcolors(1 << 20) or ()}
    assert {ImageColor.getrgb(GOOD), ImageColor.getrgb(BAR)} <= colours
    assert ImageColor.getrgb(BAD) not in colours
