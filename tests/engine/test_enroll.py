"""What enrolling a portrait says beside that it worked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.picture_files import portrait
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.enroll import Enroller
from engine.errors import PortraitRefused
from engine.face.detector import DETECTOR, LANDMARKS, FaceReader
from engine.face.lips import LIPS, LipWatch
from engine.motion.retarget import FaceBasis


class Keeps:
    """A renderer that only keeps what it is given."""

    def enroll(self, kept: Any) -> Any:
        return SimpleNamespace(size=kept.rgb.shape[:2], portrait=kept)


@pytest.fixture(scope="module")
def enroller() -> Enroller:
    backend, weights = load_backend("openvino", threads=2), EngineConfig().weights
    detector, landmarks, lips = (
        backend.load(spec, weights / f"{spec.name}.onnx") for spec in (DETECTOR, LANDMARKS, LIPS)
    )
    basis = FaceBasis.load(weights / "basis.npz")
    return Enroller(FaceReader(detector, landmarks), LipWatch(lips), Keeps(), basis, 512)  # type: ignore[arg-type]


def test_a_plain_portrait_has_one_face_and_nothing_to_say(enroller: Enroller) -> None:
    report = enroller.enroll(np.asarray(portrait())).report
    assert report.notices == ()
    assert (len(report.faces), report.face) == (1, 1)
    left, top, right, bottom = report.faces[0]
    assert 0.3 < left < right < 0.6
    assert 0.1 < top < bottom < 0.4


def test_of_two_faces_the_largest_talks_and_another_can_be_named(enroller: Enroller) -> None:
    head = portrait().crop((100, 0, 356, 256))
    scene = Image.new("RGB", (900, 480), (120, 125, 130))
    scene.paste(head.resize((360, 360)), (20, 60))
    scene.paste(head.resize((480, 480)), (400, 0))
    picture = np.asarray(scene)
    identity = enroller.enroll(picture)
    assert identity.report.face == 2
    assert "2 faces" in identity.report.notices[0]
    assert "number 2 from the left" in identity.report.notices[0]
    named = enroller.enroll(picture, face=1)
    assert named.report.face == 1
    assert not [n for n in named.report.notices if "faces" in n]
    assert named.report.faces == identity.report.faces
    assert (
        named.face.portrait.landmarks[:, 0].max()
        < 256
        < identity.face.portrait.landmarks[:, 0].max()
    )
    with pytest.raises(PortraitRefused, match="There is no face 3"):
        enroller.enroll(picture, face=3)


def test_a_face_that_becomes_small_when_drawn_is_said(enroller: Enroller) -> None:
    scene = Image.new("RGB", (1600, 1600), (120, 125, 130))
    scene.paste(portrait(), (500, 500))
    report = enroller.enroll(np.asarray(scene)).report
    assert "pixels high in the 512x512" in report.notices[0]
