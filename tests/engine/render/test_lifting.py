"""The head moves over a background that stays."""

import numpy as np
import pytest

from engine.avatar import AvatarEngine
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.face import arkit
from engine.face.image_file import decode_image
from engine.face.landmarks import crop_transform
from engine.face.matte import MATTE, Matting, mean_around
from engine.motion.retarget import FaceBasis, retarget
from engine.render.base import FrameCondition, Portrait
from engine.render.holds import NOWHERE, holds, whole_picture
from engine.render.lifting import fill, lift, lift_off_grey
from engine.render.tiny import TinyRenderer
from server.settings import BUNDLED_PORTRAIT

RGB = decode_image(BUNDLED_PORTRAIT.read_bytes())
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return AvatarEngine.load(EngineConfig())


@pytest.fixture(scope="module")
def landmarks(engine: AvatarEngine) -> np.ndarray:
    return engine._enroller.reader.read(RGB).face.landmarks


@pytest.fixture(scope="module")
def matting() -> Matting:
    net = load_backend("openvino", threads=1).load(MATTE, EngineConfig().weights / "matte.onnx")
    return Matting(net)


def test_the_person_is_told_from_what_is_behind(matting: Matting, landmarks: np.ndarray) -> None:
    matte = matting(RGB, landmarks, crop_transform(landmarks))
    assert matte is not None
    assert matte[60:190, 190:260].mean() > 0.98, "the head"
    assert matte[400:500, 120:300].mean() > 0.95, "the suit"
    assert matte[:200, :100].mean() < 0.05, "the flag"
    assert matte[40:200, 380:430].mean() < 0.1, "the rocket"


def test_a_face_that_is_taken_for_nobody_moves_with_its_picture(
    matting: Matting, landmarks: np.ndarray
) -> None:
    wall = np.full((512, 512, 3), 128, np.uint8)
    assert matting(wall, landmarks, crop_transform(landmarks)) is None


def test_means_are_of_what_is_there() -> None:
    values = RNG.random((7, 9)).astype(np.float32)
    means = mean_around(values, 2)
    assert means[3, 4] == pytest.approx(values[1:6, 2:7].mean())
    assert means[0, 0] == pytest.approx(values[:3, :3].mean())


def test_what_is_not_known_is_filled_from_around_it() -> None:
    ramp = np.broadcast_to(np.linspace(0, 250, 60, dtype=np.float32), (3, 40, 60)).copy()
    known = np.ones((40, 60), np.float32)
    known[10:30, 20:40] = 0
    filled = fill(np.where(known > 0, ramp, 999), known)
    np.testing.assert_array_equal(filled[:, known > 0], ramp[:, known > 0])
    hole = filled[:, 10:30, 20:40]
    assert ramp.min() <= hole.min()
    assert hole.max() <= ramp.max()
    assert np.abs(hole - ramp[:, 10:30, 20:40]).mean() < 20
    nothing = fill(ramp, np.zeros((40, 60), np.float32))
    assert np.isfinite(nothing).all()


@pytest.mark.parametrize("known", [True, False])
def test_the_layers_of_a_portrait_give_its_pixels_again(known: bool) -> None:
    rgb = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    matte = mean_around((RNG.random((40, 50)) > 0.5).astype(np.float32), 2) if known else None
    person, behind = (layer[0] for layer in (lift(rgb, matte).person, lift(rgb, matte).behind))
    laid = person[:3] + (1 - person[3]) * behind
    np.testing.assert_allclose(laid.transpose(1, 2, 0), rgb, atol=1e-3)


def test_a_transparent_portrait_is_parted_by_its_own_alpha() -> None:
    rgb = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:6, 2:6] = 255
    lifted = lift_off_grey(rgb, alpha)
    np.testing.assert_array_equal(lifted.person[0, :3, 2:6, 2:6], rgb[2:6, 2:6].transpose(2, 0, 1))
    np.testing.assert_array_equal(lifted.person[0, 3] * 255, alpha)


def test_clothes_and_what_the_edge_cuts_stay(matting: Matting, landmarks: np.ndarray) -> None:
    to_crop = crop_transform(landmarks)
    matte = matting(RGB, landmarks, to_crop)
    assert matte is not None
    portrait = Portrait(RGB, landmarks, to_crop, matte=matte)
    held = holds(portrait, np.eye(2, dtype=np.float32)[None])
    anchors = held.anchors[0][held.anchors[0, :, 0] < NOWHERE]
    assert len(anchors) > 10
    assert (anchors[:, 1] > portrait.source[152, 1]).all(), (
        "only the suit stays, not the hair nor the wall"
    )
    assert held.anchors.shape == whole_picture().anchors.shape
    assert (held.shares <= whole_picture().shares + 1e-6).all(), "the collar goes along the less"


def test_a_head_that_turns_leaves_the_background(engine: AvatarEngine) -> None:
    identity = engine.enroll(RGB)
    renderer = engine._renderer
    assert isinstance(renderer, TinyRenderer)
    pose = np.array([0.1, 0.05, 0.05, 0.1, 0.03, 0.02], np.float32)
    basis = FaceBasis.load(EngineConfig().weights / "basis.npz")
    still, lids = np.zeros(arkit.COUNT, np.float32), np.zeros(2, np.float32)
    frames = []
    for placed in (np.zeros(6, np.float32), pose):
        target = retarget(identity.neutral, basis, still, placed)
        condition = FrameCondition(target, lids, placed, renderer.noise(0))
        [(frame, _)] = renderer.draw([(identity.face, renderer.cold(identity.face), condition)])
        frames.append(frame.astype(int))
    moved = np.abs(frames[1] - frames[0]).max(-1)
    matte = identity.face.composite.person[0, 3]
    away = mean_around(matte, 16) == 0
    assert away.mean() > 0.2
    assert (moved[away] <= 1).all(), "the flag and the rocket"
    assert (moved[60:190, 190:260] > 10).mean() > 0.2, "the head"
