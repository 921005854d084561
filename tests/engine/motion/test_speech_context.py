"""What a frame hears is decided with it, however the stream was cut."""

import numpy as np
import pytest

from engine.motion.speech_context import HEARD, SpeechContext, decided, window


def features(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)


def test_a_window_ends_where_its_frame_is_decided() -> None:
    rows = features(60)
    assert decided(0) == 6  # its own two feature frames and two frames of look-ahead
    np.testing.assert_array_equal(window(rows, 9), rows[24 - HEARD : 24])
    first = window(rows, 0)
    assert not first[: HEARD - 6].any()
    np.testing.assert_array_equal(first[-6:], rows[:6])


def test_after_the_end_of_a_clip_the_last_row_stays() -> None:
    rows = features(20)
    np.testing.assert_array_equal(window(rows, 9)[-5:, 0], np.full(5, 20))


@pytest.mark.parametrize("cut", [1, 2, 5, 11, 60])
def test_cutting_the_stream_changes_nothing(cut: int) -> None:
    rows, heard, frame = features(60), SpeechContext(features(0)), 0
    for start in range(0, 60, cut):
        heard.push(rows[start : start + cut], frame)
        while decided(frame) <= min(start + cut, 60):
            np.testing.assert_array_equal(heard.at(frame), window(rows, frame))
            frame += 1
    assert frame == 28
    heard.push(features(0), frame)
    assert len(heard.features) < HEARD + 2, "the past is forgotten"
