"""Stretches of film and sound made ready."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from engine.evaluation.clips import prepare
from engine.evaluation.lossless import write_lossless
from engine.evaluation.sets import EvaluationClip

CLICK_S = 1.2


def film(path: Path) -> Path:
    """Two seconds of grey, with one click."""
    sound = np.zeros(2 * 16000, np.float32)
    sound[round(CLICK_S * 16000)] = 0.9
    write_lossless((np.full((16, 16, 3), 90, np.uint8) for _ in range(50)), sound, path)
    return path


@pytest.mark.parametrize(("late", "at"), [(0.0, 0.8), (0.25, 0.55), (-0.25, 1.05)])
def test_a_films_late_sound_is_moved_before_its_lips(
    tmp_path: Path, late: float, at: float
) -> None:
    clip = EvaluationClip(
        name="a", real=film(tmp_path / "a.mkv"), start_s=0.4, seconds=1.2, sound_late_s=late
    )
    made = prepare(clip, tmp_path / "kept")
    assert np.argmax(np.abs(made.pcm)) == pytest.approx(at * 16000, abs=1)
    assert len(made.pcm) == 30 * 640
    assert bool(made.notes) == bool(late)
