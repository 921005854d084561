"""ADFD against worked examples, and against the figures its document gives for noise."""

import numpy as np
import pytest

from engine.evaluation.adfd import adfd, adfd_paper


def walk(frames: int = 200) -> np.ndarray:
    """68 points of a face that sways, in pixels of 256."""
    rng = np.random.default_rng(0)
    face = rng.uniform(60, 196, (68, 2))
    time = np.arange(frames)[:, None, None] / 25
    return face + 6 * np.sin(2 * np.pi * 0.5 * time) * rng.uniform(0.5, 1, (1, 68, 2))


def test_a_video_equals_itself() -> None:
    score = adfd(walk(), walk(), 256 * 2**0.5)
    assert (score.score, score.spatial) == (pytest.approx(1), 1)
    assert adfd_paper(walk() / 256, walk() / 256) > 10, "the printed form has no such bound"


def test_noise_costs_motion_first() -> None:
    truth, rng = walk(), np.random.default_rng(1)
    scores = [
        adfd(truth + rng.normal(0, noise, truth.shape), truth, 256 * 2**0.5)
        for noise in (0.5, 1, 2, 5)
    ]
    spatial = [s.spatial for s in scores]
    # a point is sqrt 2 noise away on average: 0.998, 0.996, 0.992, 0.980
    assert spatial == pytest.approx([0.998, 0.996, 0.992, 0.980], abs=0.001)
    motion = [s.motion for s in scores]
    assert motion == sorted(motion, reverse=True)
    assert 0.5 < motion[-1] < 0.6
    assert all(s.score == pytest.approx(s.spatial * s.motion) for s in scores)


def test_worked_examples() -> None:
    still = np.zeros((3, 2, 2))
    right = still + np.arange(3)[:, None, None] * np.array([1.0, 0])
    left = -right
    assert adfd(right, left, 10).motion == pytest.approx(0)
    assert adfd(still, still, 10).motion == 1
    assert adfd(still, right, 10).motion == pytest.approx(0.5)
    # frames are 0, 1 and 2 apart over a diagonal of 10
    assert adfd(still, right, 10).spatial == pytest.approx(1 - (0 + 0.1 + 0.2) / 3)
    assert adfd(still + 50, still, 10).spatial == 0, "never below nothing"
    # printed: two points 1 apart each frame, then sum 2 under the root; motion dot 2 of lengths 2
    moved = right + np.array([0, 1.0])
    expected = (1 - np.sqrt(2 / np.sqrt(2))) * (2 + 1) / (2 * 2)
    assert adfd_paper(moved, right) == pytest.approx(expected)
    assert np.isnan(adfd_paper(still, right))


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="T >= 2"):
        adfd(np.zeros((1, 68, 2)), np.zeros((1, 68, 2)), 1)
    with pytest.raises(ValueError, match="T >= 2"):
        adfd(np.zeros((3, 68, 2)), np.zeros((3, 67, 2)), 1)
