"""A mouth whose speaker is cut off."""

from __future__ import annotations

import numpy as np
import pytest

from engine.face import arkit
from engine.motion.settle import CLOSING, Settling

LOUD, SILENT = 0.8, 0.0


def step(settling: Settling, energies: list[float]) -> np.ndarray:
    """The jaw's share that is shown, frame by frame; all coefficients are asked for at .5."""
    spoken = np.full((len(energies), arkit.COUNT), 0.5, np.float32)
    shown = settling.step(spoken, np.array(energies, np.float32))
    others = np.setdiff1d(np.arange(arkit.COUNT), arkit.MOUTH)
    np.testing.assert_array_equal(shown[:, others], 0.5)  # eyes and brows go on
    return shown[:, arkit.index("jawOpen")] / 0.5


def test_nothing_is_changed_before_an_interruption() -> None:
    np.testing.assert_array_equal(step(Settling(), [LOUD, SILENT]), 1)


def test_old_frames_pass_and_then_the_mouth_closes_whatever_is_still_heard() -> None:
    settling = Settling()
    settling.begin(2)
    shown = step(settling, [LOUD] * (2 + len(CLOSING)))
    assert shown[:2] == pytest.approx(1)
    assert shown[2:] == pytest.approx(CLOSING)
    assert shown[3] < 0.1  # 80 ms


def test_it_stays_closed_in_silence_and_opens_for_new_speech() -> None:
    settling = Settling()
    settling.begin(0)
    assert step(settling, [SILENT] * 40)[len(CLOSING) :].max() == 0
    shown = step(settling, [LOUD] * 5)
    assert (np.diff(shown) >= 0).all()
    assert shown[-1] == 1
    np.testing.assert_array_equal(step(settling, [SILENT, LOUD]), 1)


def test_frames_settle_alike_however_they_come() -> None:
    energies = [LOUD] * 4 + [SILENT] * 6 + [LOUD] * 6
    whole, apart = Settling(), Settling()
    whole.begin(2)
    apart.begin(2)
    at_once = step(whole, energies)
    one_by_one = np.concatenate([step(apart, [energy]) for energy in energies])
    np.testing.assert_array_equal(at_once, one_by_one)
