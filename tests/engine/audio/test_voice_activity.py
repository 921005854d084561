"""Noise that does not change shuts the vad, speech opens it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.audio.voice_activity import FIRST, MELS, MEMORY, VoiceActivityDetector

SILENCE = np.full((2, 50), -1.5, np.float32)
RNG = np.random.default_rng(0)


def openings(levels: np.ndarray) -> np.ndarray:
    """Gate over hops whose bands all stand at `levels` (T,), or at levels (T, MELS)."""
    vad = VoiceActivityDetector(SILENCE)
    state = vad.start()
    out = []
    for level in levels:
        pair = np.zeros((2, 50), np.float32)
        pair[:, -MELS:] = level
        out.append(vad.step(state, pair))
    return np.array(out)


def speech(hops: int, floor: float) -> np.ndarray:
    """Syllables of four hops a second and a half above `floor`, with pauses."""
    voiced = (np.arange(hops) % 7) < 4
    return np.where(voiced, floor + 1.2, floor + 0.02)


def test_silence_keeps_it_shut() -> None:
    assert not openings(np.full(200, -1.5)).any()


def test_speech_opens_it_with_its_first_hop_and_keeps_it_open() -> None:
    opened = openings(np.concatenate([np.full(20, -1.5), speech(400, -1.5)]))
    assert opened[19] == 0
    assert opened[20] == 1
    assert opened[20:].min() > 0.6


def test_steady_noise_shuts_it_once_its_floor_is_known() -> None:
    noise = -0.5 + 0.1 * RNG.standard_normal((400, MELS))
    opened = openings(noise)
    assert opened[10] == 1, "at first it might be speech"
    assert opened[MEMORY + 60 :].max() < 0.05


def test_speech_in_steady_noise_still_opens_it() -> None:
    noise = np.full(200, -0.5)
    opened = openings(np.concatenate([noise, speech(200, -0.5)]))
    assert opened[195] < 0.05
    assert opened[200:].min() > 0.6


def test_bands_of_the_mains_alone_do_not_open_it() -> None:
    levels = np.full((100, MELS), -1.5)
    levels[20:, :FIRST] = 1.0
    assert not openings(levels).any()


def test_it_closes_slowly() -> None:
    opened = openings(np.concatenate([np.full(5, 0.5), np.full(60, -1.5)]))
    assert opened[5:9].min() > 0.7
    assert opened[-1] < 0.05
    assert (np.diff(opened[5:]) < 0).all()


def test_streams_do_not_share_what_they_remember() -> None:
    vad = VoiceActivityDetector(SILENCE)
    one, two = vad.start(), vad.start()
    loud = np.zeros((2, 50), np.float32)
    for _ in range(300):
        vad.step(one, loud)
    assert vad.step(one, loud) == pytest.approx(0, abs=0.01)
    assert vad.step(two, loud) == 1
