"""Received pictures put in the order of the speech by their codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import DataError
from server.evaluation.live import Seen, arrange, as_rgb, strip_height, with_strip, without_strip
from server.live import frame_code
from server.live.frame_code import FrameCode

SIZE = (96, 128)
FRAME = 48_000 // 25


def received(number: int, grey: int, at: float) -> Seen:
    """A picture as it comes: the strip over a grey portrait."""
    rows = SIZE[0] + strip_height(SIZE[1])
    yuv = np.full((rows * 3 // 2, SIZE[1]), 128, np.uint8)
    yuv[:rows] = grey
    frame_code.draw(yuv, FrameCode(number, 0))
    return Seen(at, as_rgb(yuv.reshape(-1), rows, SIZE[1]))


def left(numbers: range, first_spoken: int) -> list[dict[str, Any]]:
    return [
        {"number": n, "place": 777 * FRAME + n * FRAME, "spoken": first_spoken <= n < 20}
        for n in numbers
    ]


def test_each_frame_of_the_speech_gets_the_picture_of_its_sound() -> None:
    seen = [received(n, 40 + 5 * n, 100.3 + n / 25) for n in (8, 9, 10, 11, 13)]
    made = arrange(seen, left(range(20), 10), 100.0 + 10 / 25, SIZE, 5)
    greys = [float(frame.mean()) for frame in made.frames]
    wanted = [(40 + 5 * n - 16) * 255 / 219 for n in (10, 11, 11, 13, 13)]
    assert greys == pytest.approx(wanted, abs=1.0)
    assert {frame.shape[:2] for frame in made.frames} == {SIZE}
    assert made.held == 2  # numbers 12 and 14
    assert made.latency_ms == pytest.approx(300, abs=1)


def test_pictures_without_a_code_are_passed_over_and_nothing_at_all_is_refused() -> None:
    blank = Seen(0.0, np.zeros((108, 128, 3), np.uint8))
    with pytest.raises(DataError, match="shown"):
        arrange([blank], left(range(20), 10), 0.0, SIZE, 5)
    with pytest.raises(DataError, match="left the server"):
        arrange([blank], left(range(20), 30), 0.0, SIZE, 5)


def test_the_strip_is_added_and_taken_off_again_at_every_size() -> None:
    portrait = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    assert (without_strip(with_strip(portrait), SIZE) == portrait).all()
    half = with_strip(portrait)[::2, ::2]
    assert without_strip(half, SIZE).shape == portrait.shape
