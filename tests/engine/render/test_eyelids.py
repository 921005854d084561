"""Lids that come down over a portrait's eyes, on a drawn face."""

from __future__ import annotations

import numpy as np
import pytest

from engine.face.topology import LEFT_LIDS, RIGHT_LIDS
from engine.render.eyelids import UNDER_BROWS, close_lids, make_lids
from engine.render.lab import to_lab
from engine.render.lid_skin import sample

SKIN, WHITE, LASH = (200, 150, 120), 250, 20
WIDTH, HALF = 40, 8  # of an eye and of its opening, pixels


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """A picture of skin with two white eyes under dark lashes, and its landmarks."""
    rgb = np.full((120, 200, 3), SKIN, np.uint8)
    landmarks = np.full((478, 2), 60, np.float32)
    x = np.linspace(0, 1, 9)
    arch = HALF * np.sin(np.pi * x)
    for lids, brow, left in (
        (RIGHT_LIDS, UNDER_BROWS[0], 40),
        (LEFT_LIDS, UNDER_BROWS[1], 120),
    ):
        landmarks[list(lids[0])] = np.c_[left + WIDTH * x, 60 - arch]
        landmarks[list(lids[1])] = np.c_[left + WIDTH * x, 60 + arch]
        landmarks[list(brow)] = np.c_[left + WIDTH * np.linspace(0, 1, 5), np.full(5, 35)]
        for i, column in enumerate(range(left, left + WIDTH)):
            open_by = int(HALF * np.sin(np.pi * i / WIDTH))
            rgb[60 - open_by : 60 + open_by, column] = WHITE
            rgb[60 - open_by - 2 : 60 - open_by, column] = LASH
    return rgb, landmarks


def closed(right: float, left: float) -> tuple[np.ndarray, np.ndarray]:
    """The drawn picture before and after, (H, W, 3)."""
    rgb, landmarks = drawn()
    eyes = make_lids(rgb, landmarks)
    portrait = rgb.transpose(2, 0, 1).astype(np.float32)
    after = close_lids(portrait, eyes, np.array([right, left], np.float32))
    np.testing.assert_array_equal(portrait, rgb.transpose(2, 0, 1))  # it is shared: untouched
    return rgb, after.transpose(1, 2, 0)


def test_open_eyes_are_left_alone() -> None:
    before, after = closed(0, 0)
    np.testing.assert_array_equal(after, before)


def test_a_closed_eye_shows_skin_and_no_white() -> None:
    _, after = closed(1, 1)
    for left in (40, 120):
        lid = after[52:62, left + 8 : left + 32]
        assert np.abs(lid - SKIN).max() < 40
        assert after[:, left : left + WIDTH].max() < 225


def test_the_lashes_come_down_with_the_lid() -> None:
    _, after = closed(1, 0)
    dark = after[:, 60].mean(-1).argmin()  # the middle of the right eye
    assert 60 + HALF - 3 <= dark <= 60 + HALF + 2
    assert after[dark, 60].mean() < 100


def test_half_way_the_lower_half_still_looks_out() -> None:
    before, after = closed(0.5, 0)
    np.testing.assert_allclose(after[64:67, 58:62], before[64:67, 58:62], atol=30)
    assert after[55, 60].max() < 220


def test_each_eye_closes_alone_and_nothing_else_changes() -> None:
    before, after = closed(0, 1)
    changed = np.abs(after - before).max(-1) > 1
    rows, columns = np.nonzero(changed)
    assert columns.min() >= 115
    assert columns.max() <= 165
    assert rows.min() >= 40
    assert rows.max() <= 75


def test_a_deep_set_eye_is_not_closed_with_shadow() -> None:
    """Dark skin right above the eye, light skin around it: the lid has the colour around."""
    rgb, landmarks = drawn()
    rgb[44:52, 40:80] = 40
    portrait = rgb.transpose(2, 0, 1).astype(np.float32)
    after = close_lids(portrait, make_lids(rgb, landmarks), np.ones(2, np.float32))
    assert after[:, 58, 60].mean() > 110


def test_an_eye_at_the_edge_of_the_picture_is_no_trouble() -> None:
    rgb, landmarks = drawn()
    eyes = make_lids(rgb[:, 55:], landmarks - np.array([55, 0], np.float32))
    portrait = rgb[:, 55:].transpose(2, 0, 1).astype(np.float32)
    after = close_lids(portrait, eyes, np.ones(2, np.float32))
    assert np.isfinite(after).all()


def test_sampling_is_exact_on_pixel_centres_and_linear_between() -> None:
    ramp = np.tile(np.arange(10, dtype=np.float32), (3, 8, 1))
    at = np.array([2.5, 3.0, 20.0], np.float32)
    values = sample(ramp, at, np.full(3, 4.5, np.float32))
    assert values[0] == pytest.approx([2, 2.5, 9], abs=0.01)


def test_a_lid_has_the_colour_and_the_grain_of_the_skin_around_it() -> None:
    rgb, landmarks = drawn()
    grain = np.random.default_rng(0).normal(0, 8, rgb.shape[:2])[..., None]
    rgb = np.clip(rgb + grain, 0, 255).astype(np.uint8)
    portrait = rgb.transpose(2, 0, 1).astype(np.float32)
    shut = close_lids(portrait, make_lids(rgb, landmarks), np.ones(2, np.float32))
    lid = shut[:, 56:62, 52:68].transpose(1, 2, 0) / 255
    skin = rgb[80:90, 40:80].astype(np.float32) / 255
    assert np.abs((to_lab(lid).mean((0, 1)) - to_lab(skin).mean((0, 1)))[0]) < 5
    assert 0.4 < np.diff(lid, axis=1).std() / np.diff(skin, axis=1).std() < 1.5


def test_a_grey_portrait_gets_grey_lids() -> None:
    rgb, landmarks = drawn()
    grey = np.repeat(rgb.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    portrait = grey.transpose(2, 0, 1).astype(np.float32)
    shut = close_lids(portrait, make_lids(grey, landmarks), np.full(2, 0.7, np.float32))
    assert np.ptp(shut, 0).max() < 0.01
