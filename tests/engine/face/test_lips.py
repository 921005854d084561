"""A mouth that is covered, cut off or wide open is found at enrolment, in words."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.picture_files import FILES, portrait
from engine.backends import load_backend
from engine.backends.base import Array
from engine.config import EngineConfig
from engine.errors import PortraitRefused
from engine.face.detector import DETECTOR, LANDMARKS, FaceReader
from engine.face.landmarks import apply, crop_transform
from engine.face.lips import LIP_CROP, LIPS, LipWatch, lip_crop, outside

POINTS = {10: (100, 40), 152: (100, 160), 33: (70, 80), 263: (130, 80), 2: (100, 110)}
MOUTH = {
    61: (80, 130),
    291: (120, 130),
    0: (100, 124),
    17: (100, 140),
    13: (100, 130),
    14: (100, 133),
}


class FakeNet:
    """Says what it is told."""

    spec = LIPS

    def __init__(self, seen: float, gap: float = 0.0) -> None:
        self.answer = {"seen": np.float32([[seen]]), "gap": np.float32([[gap]])}

    def __call__(self, **feeds: Array) -> dict[str, Array]:
        self.spec.check(feeds)
        return self.answer


def face(right: float = 0.0, down: float = 0.0) -> np.ndarray:
    points = np.full((478, 2), 130.0, np.float32)
    points[:, 0] = 100
    for row, place in {**POINTS, **MOUTH}.items():
        points[row] = place
    return points + np.float32([right, down])


def test_the_crop_is_the_square_around_the_mouth() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    landmarks = face() * 2
    picture[258:264, 198:204] = 255  # where the lips meet
    crop = lip_crop(picture, crop_transform(landmarks)).astype(float).sum(2)
    rows, columns = np.mgrid[:LIP_CROP, :LIP_CROP] + 0.5
    seen = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum() / LIP_CROP
    wanted = apply(crop_transform(landmarks), np.float32([[201, 261]]))[0]
    np.testing.assert_allclose(seen, wanted, atol=0.02)


def test_outside_is_in_widths_of_the_mouth() -> None:
    assert outside(face(), 200, 200) == 0
    assert outside(face(right=-90), 200, 200) == pytest.approx(0.25)
    assert outside(face(), 200, 130) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("seen", "gap", "code", "words"),
    [
        (4.0, 0.02, "", ""),
        (0.0, 0.02, "", "cover part"),
        (4.0, 0.11, "", "may not close"),
        (-3.0, 0.3, "mouth_hidden", "covered"),
        (4.0, 0.3, "mouth_open", "wide open"),
    ],
)
def test_what_the_net_sees_is_said_in_words(seen: float, gap: float, code: str, words: str) -> None:
    watch, picture = LipWatch(FakeNet(seen, gap)), np.zeros((200, 200, 3), np.uint8)
    if not code:
        said = watch.check(picture, face())
        assert words in said
        assert bool(said) == bool(words)
        return
    with pytest.raises(PortraitRefused, match=words) as caught:
        watch.check(picture, face())
    assert caught.value.code == code


@pytest.fixture(scope="module")
def nets() -> tuple[FaceReader, LipWatch]:
    backend, weights = load_backend("openvino", threads=2), EngineConfig().weights
    detector, landmarks, lips = (
        backend.load(spec, weights / f"{spec.name}.onnx") for spec in (DETECTOR, LANDMARKS, LIPS)
    )
    return FaceReader(detector, landmarks), LipWatch(lips)


def test_shipped_weights_have_nothing_to_say_on_the_bundled_portrait(
    nets: tuple[FaceReader, LipWatch],
) -> None:
    reader, watch = nets
    for image in (
        portrait(),
        portrait().convert("L").convert("RGB"),
        portrait().resize((1500, 1500)),
    ):
        rgb = np.asarray(image)
        assert watch.check(rgb, reader.read(rgb).face.landmarks) == ""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("mask", "mouth_hidden"),
        ("microphone", "mouth_hidden"),
        ("hand", "mouth_hidden"),
        ("cut through the mouth", "mouth_hidden"),
        ("wide-open mouth", "mouth_open"),
    ],
)
def test_shipped_weights_refuse_a_mouth_that_cannot_talk(
    nets: tuple[FaceReader, LipWatch], name: str, code: str
) -> None:
    reader, watch = nets
    file = next(file for file in FILES if file.name == name)
    rgb = np.asarray(Image.open(io.BytesIO(file.make())).convert("RGB"))
    with pytest.raises(PortraitRefused) as caught:
        watch.check(rgb, reader.read(rgb).face.landmarks)
    assert caught.value.code == code
