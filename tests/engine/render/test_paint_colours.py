"""Colours of painted crops, tied to those of the portrait."""

from __future__ import annotations

import numpy as np
import pytest

from engine.face.topology import INNER_LOWER_LIP, INNER_UPPER_LIP
from engine.render.lab import from_lab, to_lab
from engine.render.paint_colours import SKIN, PaintColours, paint_colours

SKIN_COLOUR, TEETH, DULL = (0.72, 0.52, 0.42), (0.9, 0.88, 0.82), (0.6, 0.62, 0.66)
SIDE = 128
MOUTH = slice(72, 88), slice(48, 80)  # rows, columns of the crop


def landmarks() -> np.ndarray:
    """Lips parted around `MOUTH`, cheeks beside it; crop units."""
    points = np.full((478, 2), 0.5, np.float32)
    points[[10, 152]] = (0.5, -0.8), (0.5, 1.0)
    x = np.linspace(48, 80, 11) / SIDE
    points[list(INNER_UPPER_LIP)] = np.c_[x, np.full(11, 72 / SIDE)]
    points[list(INNER_LOWER_LIP)] = np.c_[x, np.full(11, 88 / SIDE)]
    points[list(SKIN)] = 0.2, 0.2
    return points


def crop(teeth: tuple[float, ...], grey: bool = False) -> np.ndarray:
    """A textured crop (3, 128, 128) in [-1, 1] of skin with such teeth in the mouth."""
    shade = 0.8 + 0.2 * np.random.default_rng(0).random((SIDE, SIDE, 1))
    picture = shade * np.array(SKIN_COLOUR) * (1, 1 + 0.2 * shade.mean(), 1)
    picture[:40] = shade[:40] * (0.3, 0.4, 0.6)  # a collar: no tone explains both
    picture[10:30, 10:40] = SKIN_COLOUR
    picture[MOUTH] = teeth
    if grey:
        picture[:] = picture.mean(-1, keepdims=True)
    return np.ascontiguousarray(picture.transpose(2, 0, 1) * 2 - 1, np.float32)


def put_right(colours: PaintColours, painted: np.ndarray, trust: float = 0.0) -> np.ndarray:
    """What a painted crop (3, 128, 128) shows (128, 128, 3) in [0, 1] after it was put right."""
    warped = np.zeros((1, 3, SIDE, SIDE), np.float32)
    opening = np.zeros((1, 1, 64, 64), np.float32)
    opening[0, 0, 36:44, 24:40] = 1
    patch = np.concatenate([painted, np.full((1, SIDE, SIDE), trust, np.float32)])[None]
    kept = patch.copy()
    right = colours.correct(patch, warped, opening)
    np.testing.assert_array_equal(patch, kept)  # the painter's own is left alone
    return (right[0, :3].transpose(1, 2, 0) + 1) / 2


def test_paint_on_a_grey_portrait_is_grey() -> None:
    painted = crop(DULL)
    colours = paint_colours(crop(TEETH, grey=True), landmarks())
    shown = put_right(colours, painted)
    assert np.ptp(shown, -1).max() < 0.01
    assert shown.std() > 0.05


def test_paint_on_a_toned_portrait_has_its_tone() -> None:
    sepia = crop(TEETH, grey=True) * 0.5 + np.array([0.3, 0.1, -0.2], np.float32)[:, None, None]
    painted = crop(DULL)
    shown = put_right(paint_colours(sepia, landmarks()), painted)
    own = to_lab((sepia.transpose(1, 2, 0) + 1) / 2)[..., 1:].mean((0, 1))
    assert np.abs(to_lab(shown)[..., 1:].mean((0, 1)) - own).max() < 4


def test_teeth_get_the_colour_of_the_persons_own_and_nothing_else_changes() -> None:
    painted = crop(DULL)
    colours = paint_colours(crop(TEETH), landmarks())
    before = (painted.transpose(1, 2, 0) + 1) / 2
    shown = put_right(colours, painted)
    inside = shown[MOUTH][3:-3, 3:-3]
    wanted = to_lab(np.array(TEETH))
    made = to_lab(inside).mean((0, 1))
    assert np.abs(made[1:] - wanted[1:]).max() < 3
    assert to_lab(np.array(DULL))[0] + 5 < made[0] < wanted[0] + 3
    shown[MOUTH] = before[MOUTH]
    np.testing.assert_allclose(shown, before, atol=1e-6)


@pytest.mark.parametrize("inside", [(0.62, 0.3, 0.3), (0.08, 0.05, 0.05)], ids=["tongue", "dark"])
def test_a_tongue_and_the_dark_of_a_mouth_are_no_teeth(inside: tuple[float, ...]) -> None:
    colours = paint_colours(crop(TEETH), landmarks())
    shown = put_right(colours, crop(inside))
    np.testing.assert_allclose(shown[80, 64], inside, atol=0.03)


def test_lab_has_known_values_and_a_way_back() -> None:
    np.testing.assert_allclose(to_lab(np.array([1.0, 1, 1])), (100, 0, 0), atol=0.1)
    np.testing.assert_allclose(to_lab(np.array([1.0, 0, 0])), (53.24, 80.09, 67.20), atol=0.1)
    rgb = np.random.default_rng(0).random((50, 3))
    np.testing.assert_allclose(from_lab(to_lab(rgb)), rgb, atol=1e-4)
