"""Pictures made ready for encoders."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from server.live.clips import Picture
from server.live.yuv import Converter, as_frame, to_yuv


def test_a_picture_keeps_its_colours() -> None:
    rgb = np.empty((64, 96, 3), dtype=np.uint8)
    rgb[:32], rgb[32:] = (220, 20, 40), (10, 200, 90)
    back = as_frame(to_yuv(rgb)).to_ndarray(format="rgb24").astype(int)
    assert np.abs(back[:30] - (220, 20, 40)).max() <= 3
    assert np.abs(back[34:] - (10, 200, 90)).max() <= 3


def test_odd_sides_are_cut_and_what_is_given_is_left_alone() -> None:
    rgb = np.arange(65 * 71 * 3, dtype=np.uint32).reshape(65, 71, 3).astype(np.uint8)
    before = rgb.copy()
    assert to_yuv(rgb).shape == (96, 70)
    np.testing.assert_array_equal(rgb, before)


def test_pictures_are_ready_when_they_are_handed_on_in_order_beside_the_caller() -> None:
    converter, done = Converter(), threading.Event()
    came: list[tuple[int, bool, str]] = []

    def deliver(pictures: list[Picture]) -> None:
        name = threading.current_thread().name
        came.extend((p.index, "yuv" in vars(p), name) for p in pictures)
        if came[-1][0] == 19:
            done.set()

    take = converter.before(deliver, pytest.fail)
    rgb = np.zeros((64, 64, 3), dtype=np.uint8)
    for i in range(20):
        take([Picture(i, rgb, None, made=0.0, fresh=i % 3 > 0)])
    assert done.wait(10)
    converter.stop()
    assert [(index, ready) for index, ready, _ in came] == [(i, i % 3 > 0) for i in range(20)]
    assert {name.split("_")[0] for *_, name in came} == {"yuv"}


def test_who_waits_for_a_picture_that_cannot_be_made_ready_is_told() -> None:
    converter, failed = Converter(), threading.Event()
    take = converter.before(lambda pictures: None, lambda error: failed.set())
    take([Picture(0, np.zeros((4, 4), dtype=np.uint8), None, made=0.0)])
    assert failed.wait(10)
    converter.stop()
