"""Who speaks when, by energy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.conversation.turn_detection import TurnDetector, loudness
from server.sound.intake import Pcm48

RATE = 48_000


def tone(seconds: float, level: float = 0.2) -> Pcm48:
    t = np.arange(int(RATE * seconds)) / RATE
    return (np.sin(2 * np.pi * 300 * t) * level * 32767).astype(np.int16)


def noise(seconds: float, level: float = 0.01) -> Pcm48:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(int(RATE * seconds)) * level * 32767).astype(np.int16)


def silence(seconds: float) -> Pcm48:
    return np.zeros(int(RATE * seconds), np.int16)


SPEECH = np.concatenate([noise(1), tone(0.6) + noise(0.6), noise(0.3), tone(0.4), silence(1)])


def test_speech_begins_and_ends_a_pause_within_it_does_not_count() -> None:
    turns = TurnDetector().push(SPEECH)
    assert [turn.speaking for turn in turns] == [True, False]
    assert abs(turns[0].at_ms - 1000) <= 20
    assert abs(turns[1].at_ms - 2800) <= 20  # half a second after it fell silent


@given(st.lists(st.integers(1, 30_000), max_size=12))
def test_splitting_the_sound_differently_changes_nothing(cuts: list[int]) -> None:
    whole, detector = TurnDetector().push(SPEECH), TurnDetector()
    parts = np.split(SPEECH, np.cumsum(cuts))
    assert [turn for part in parts for turn in detector.push(part)] == whole


def test_a_click_or_a_steady_fan_is_nobody() -> None:
    detector = TurnDetector()
    assert not detector.push(np.concatenate([silence(0.5), tone(0.03), silence(0.5)]))
    detector.push(noise(8, 0.03))  # taken for a voice until its floor is known
    assert not detector.speaking
    assert not detector.push(noise(3, 0.03))


def test_loudness_is_a_meter() -> None:
    assert loudness(silence(0.02)) == 0
    assert loudness(tone(0.02, 1.0)) > 0.9
    a_tenth = loudness(tone(0.02, 1.0)) - loudness(tone(0.02, 0.1))
    assert a_tenth == pytest.approx(20 / 60, abs=1e-3)
