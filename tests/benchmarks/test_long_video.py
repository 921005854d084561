"""The figures of the long-video benchmark; its pictures need minutes and are made by hand."""

import numpy as np
import pytest

from benchmarks.long_video import FPS, seam, slope


def test_a_slope_is_per_minute() -> None:
    minute = np.arange(60 * FPS) / (60 * FPS)
    assert slope((3 + 0.5 * minute).tolist()) == pytest.approx(0.5)
    assert slope((3 - 2 * minute[::25]).tolist(), 25) == pytest.approx(-2)
    assert slope([1.0]) == 0


def test_a_seam_is_change_at_the_borders_over_change_elsewhere() -> None:
    change = np.full(30, 0.2)
    assert seam(change, [12, 24]) == pytest.approx(1)
    change[[11, 23]] = 0.6  # into frames 12 and 24
    assert seam(change, [12, 24]) == pytest.approx(3)
    assert seam(change, []) == 1
