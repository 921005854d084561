import numpy as np
import pytest

from engine.face.landmarks import (
    apply,
    crop_transform,
    face_unit,
    head_shift,
    invert,
    lip_gap,
    similarity,
)


def face(seed: int = 0) -> np.ndarray:
    """A rough upright face: random points, with those that alignment needs in place."""
    points = np.random.default_rng(seed).uniform(60, 180, (478, 2)).astype(np.float32)
    fixed = {33: (80, 100), 263: (160, 100), 2: (120, 150), 10: (120, 50), 152: (120, 210)}
    for index, place in {**fixed, 13: (120, 170), 14: (120, 178)}.items():
        points[index] = place
    return points


def turned(points: np.ndarray, angle: float, scale: float = 1.0) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return (points @ np.array([[c, s], [-s, c]]) + [13, -7]).astype(np.float32)


@pytest.mark.parametrize("angle", [-0.6, 0.0, 0.4])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_window_follows_the_face(angle: float, scale: float) -> None:
    plain = face()
    moved = turned(plain, angle, scale)
    np.testing.assert_allclose(
        apply(crop_transform(moved), moved), apply(crop_transform(plain), plain), atol=1e-3
    )


def test_the_window_holds_the_mouth_and_is_level_with_the_eyes() -> None:
    inside = apply(crop_transform(face()), face())
    assert 0.2 < inside[13, 1] < 0.8
    assert inside[33, 1] == pytest.approx(inside[263, 1], abs=1e-5)
    assert inside[33, 0] < inside[263, 0]


def test_invert_undoes() -> None:
    there = crop_transform(turned(face(), 0.3, 1.7))
    np.testing.assert_allclose(
        apply(invert(there), apply(there, face())), face(), rtol=1e-3, atol=1e-2
    )


def test_similarity_recovers_a_turn() -> None:
    fit = similarity(face(), turned(face(), 0.25, 1.5))
    np.testing.assert_allclose(apply(fit, face()), turned(face(), 0.25, 1.5), atol=1e-2)


def test_head_shift_reads_roll_and_scale() -> None:
    roll, _, _, scale = head_shift(face(), turned(face(), 0.2, 1.25))
    assert roll == pytest.approx(0.2, abs=1e-3)
    assert scale == pytest.approx(np.log(1.25), abs=1e-3)


def test_lip_gap_is_a_share_of_the_face_height() -> None:
    assert lip_gap(face()) == pytest.approx(8 / 160)
    assert lip_gap(np.stack([face(), turned(face(), 0.5, 3.0)])) == pytest.approx(
        [0.05, 0.05], rel=1e-3
    )


def test_face_unit_grows_with_the_face() -> None:
    assert face_unit(turned(face(), 0.1, 2.0)) == pytest.approx(2 * face_unit(face()), rel=1e-4)
