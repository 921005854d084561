from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.errors import WeightsError
from engine.face import arkit
from engine.face.landmarks import lip_gap
from engine.face.topology import INNER_LOWER_LIP, INNER_UPPER_LIP
from engine.motion.retarget import (
    CLING,
    FaceBasis,
    neutral_face,
    retarget,
    sealed,
    speak,
    turn_head,
    uncross_lips,
)

STILL = np.zeros(6, np.float32)


@pytest.fixture(scope="module")
def basis() -> FaceBasis:
    return FaceBasis.load(EngineConfig().weights / "basis.npz")


def coefficients(**values: float) -> np.ndarray:
    row = np.zeros(arkit.COUNT, np.float32)
    for name, value in values.items():
        row[arkit.NAMES.index(name)] = value
    return row


@pytest.fixture
def laughing() -> np.ndarray:
    """A face in crop units whose lips stand apart as in a smile with teeth."""
    points = np.random.default_rng(1).uniform(0, 1, (478, 2)).astype(np.float32)
    points[[10, 152, 33, 263, 2]] = [(0.5, -0.8), (0.5, 0.9), (0.1, -0.4), (0.9, -0.4), (0.5, 0.15)]
    x = np.linspace(0.3, 0.7, len(INNER_UPPER_LIP))
    arch = 0.06 * np.sin(np.linspace(0, np.pi, len(x)))
    points[list(INNER_UPPER_LIP)] = np.c_[x, 0.45 - arch]
    points[list(INNER_LOWER_LIP)] = np.c_[x, 0.45 + arch]
    return points


def test_a_laughing_portrait_gets_a_closed_neutral_mouth(
    basis: FaceBasis, laughing: np.ndarray
) -> None:
    assert lip_gap(laughing) > 0.06
    scores = coefficients(
        mouthSmileLeft=0.9, mouthSmileRight=0.9, mouthUpperUpLeft=0.4, jawOpen=0.05
    )
    neutral = uncross_lips(neutral_face(laughing, scores, basis))
    assert lip_gap(neutral) < 0.002


def test_a_jaw_that_opens_parts_the_lips_more_and_more(
    basis: FaceBasis, laughing: np.ndarray
) -> None:
    neutral = neutral_face(laughing, coefficients(), basis)
    gaps = [
        lip_gap(retarget(neutral, basis, coefficients(jawOpen=jaw), STILL))
        for jaw in (0, 0.1, 0.3, 0.6)
    ]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.002
    assert 0.01 < gaps[1] < 0.05
    assert gaps[3] > 0.06


def test_lips_never_cross(basis: FaceBasis, laughing: np.ndarray) -> None:
    neutral = neutral_face(laughing, coefficients(), basis)
    pressed = coefficients(mouthPressLeft=1, mouthPressRight=1, mouthRollLower=1, mouthShrugLower=1)
    face = retarget(neutral, basis, pressed, STILL)
    assert (face[list(INNER_LOWER_LIP), 1] >= face[list(INNER_UPPER_LIP), 1] - 1e-6).all()


def test_no_pose_leaves_the_face_in_place(basis: FaceBasis, laughing: np.ndarray) -> None:
    np.testing.assert_allclose(turn_head(laughing, basis.depth, STILL), laughing, atol=1e-6)


def test_yaw_moves_the_near_points_more_than_the_far_ones(basis: FaceBasis) -> None:
    face = np.full((478, 2), 0.5, np.float32)
    turned = turn_head(face, basis.depth, np.array([0.2, 0, 0, 0, 0, 0], np.float32))
    nose, encoder = turned[1, 0] - 0.5, turned[234, 0] - 0.5
    assert abs(nose) > 2 * abs(encoder)


def test_scale_and_shift(basis: FaceBasis) -> None:
    face = np.full((478, 2), 0.5, np.float32)
    pose = np.array([0, 0, 0, 0.1, -0.2, 0], np.float32)
    np.testing.assert_allclose(turn_head(face, basis.depth, pose), face + [0.1, -0.2], atol=1e-6)


def test_a_broken_basis_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "basis.npz"
    path.write_bytes(b"not an archive")
    with pytest.raises(WeightsError, match="not a readable"):
        FaceBasis.load(path)
    np.savez(path, basis=np.zeros((3, 478, 2)), depth=np.zeros(478))
    with pytest.raises(WeightsError, match="wants"):
        FaceBasis.load(path)


def test_pressed_lips_touch_although_the_jaw_is_a_little_open(
    basis: FaceBasis, laughing: np.ndarray
) -> None:
    neutral = neutral_face(laughing, coefficients(), basis)
    jaw = {"jawOpen": 0.08, "mouthLowerDownLeft": 0.06, "mouthLowerDownRight": 0.06}
    press = {"mouthPressLeft": 0.1, "mouthPressRight": 0.1, "mouthRollUpper": 0.06}

    def gap(**values: float) -> float:
        return float(lip_gap(retarget(neutral, basis, coefficients(**values), STILL)))

    assert gap(**jaw) > 0.015
    assert gap(**jaw, **press) < 0.002
    slight = {name: value / 2 for name, value in press.items()}
    assert gap(**jaw, **press) < gap(**jaw, **slight) < gap(**jaw)


def test_lips_that_nearly_touch_cling_and_parted_ones_are_left(
    basis: FaceBasis, laughing: np.ndarray
) -> None:
    neutral = neutral_face(laughing, coefficients(), basis)

    def gaps(jaw: float) -> tuple[float, float]:
        row = coefficients(jawOpen=jaw)
        free = uncross_lips(neutral + speak(neutral, basis, row))
        return float(lip_gap(free)), float(lip_gap(retarget(neutral, basis, row, STILL)))

    seen = [gaps(jaw) for jaw in np.linspace(0, 0.15, 40)]
    assert all(0 <= shown <= free + 1e-6 for free, shown in seen)
    assert [shown for _, shown in seen] == sorted(shown for _, shown in seen)
    near = [shown / free for free, shown in seen if 0 < free < CLING / 2]
    assert near
    assert max(near) < 0.6
    assert all(shown == pytest.approx(free) for free, shown in seen if free > CLING)


def test_a_lip_under_the_teeth_leaves_the_mouth_open() -> None:
    assert sealed(coefficients(mouthRollLower=0.16, mouthUpperUpLeft=0.2, mouthPressLeft=0.02)) == 0
    assert sealed(coefficients()) == 0
    assert sealed(coefficients(mouthPressLeft=0.14, mouthPressRight=0.14)) == 1


def test_rounding_narrows_the_mouth_and_leaves_the_rest_of_the_face(basis: FaceBasis) -> None:
    face = np.tile(np.array([0.5, 0.5], np.float32), (478, 1))
    face[[61, 291, 33, 263]] = [(0.3, 0.6), (0.7, 0.6), (0.1, -0.4), (0.9, -0.4)]
    face[[INNER_UPPER_LIP[0], INNER_UPPER_LIP[-1]]] = [(0.32, 0.6), (0.68, 0.6)]
    face[[234, 454]] = [(-0.2, 0.1), (1.2, 0.1)]

    def width(a: int, b: int, **values: float) -> float:
        moved = face + speak(face, basis, coefficients(**values))
        return float((moved[b] - moved[a])[0] / (face[b] - face[a])[0])

    assert width(61, 291, mouthPucker=0.3) < 0.92
    assert width(61, 291, mouthPucker=0.6) < width(61, 291, mouthPucker=0.3)
    assert width(61, 291, mouthFunnel=0.3) < 0.97
    assert width(234, 454, mouthPucker=0.6) > 0.97
