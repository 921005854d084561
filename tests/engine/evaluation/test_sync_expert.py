"""The audio-lip expert: what it is trained against, and offsets planted for it to find."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from engine.errors import DataError
from engine.evaluation.expert.planted import STRETCH, planted, unseen
from engine.evaluation.expert.roughening import at_times, misread, wander
from engine.evaluation.measures.sync import expert
from engine.training.speech.espeak import Espeak
from server.settings import BUNDLED_PORTRAIT

pytestmark = pytest.mark.train


def test_planted_offsets_are_found_on_voices_and_a_face_it_never_heard_or_saw() -> None:
    try:
        Espeak()
    except DataError as error:
        pytest.skip(f"not run: {error}")
    net = expert()
    [talk] = unseen(net, [BUNDLED_PORTRAIT])
    found = planted(net, [talk])
    assert found.count >= 11 * 5
    assert found.exact >= 0.9
    assert found.near == 1
    mute = type(talk)("mute", np.zeros_like(talk.spectrum), talk.shapes)
    assert planted(net, [mute]).exact < 0.2  # nothing is found where nothing is said


def test_misread_lips_are_neither_early_nor_late_on_average() -> None:
    rng = np.random.RandomState(0)
    true = wander(rng, STRETCH, 1, 3).repeat(8, 1).astype(np.float32)
    lags = range(-3, 4)
    r = np.zeros(len(lags))
    for _ in range(40):
        read = misread(true, rng)
        middle = read[5:-5, 3]
        r += [np.corrcoef(middle, true[5 - d : len(true) - 5 - d, 3])[0, 1] for d in lags]
    assert lags[int(np.argmax(r))] == 0
    assert 0.3 < r.max() / 40 < 0.95
    assert r[2] == pytest.approx(r[4], rel=0.1)


def test_noise_that_wanders_has_its_spread_and_is_smooth() -> None:
    noise = wander(np.random.RandomState(1), 20000, 2, 10)
    assert noise.std(0) == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.3


def test_values_between_frames_lie_on_straight_lines() -> None:
    values = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 5.0]])
    found = at_times(values, np.array([-1.0, 0.5, 1.75, 9.0]))
    np.testing.assert_allclose(found, [[0, 1], [1, 1], [3.5, 4], [4, 5]])
