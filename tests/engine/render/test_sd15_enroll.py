"""What a face encoder is shown of a portrait at full size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.config import WEIGHTS

pytest.importorskip("torch")

from engine.backends import load_backend
from engine.face.detector import DETECTOR, LANDMARKS, FaceReader
from engine.face.landmarks import crop_transform
from engine.face.topology import OVAL
from engine.profiles.sd15 import MeaninglessEmbedding
from engine.render.base import Portrait
from engine.render.sd15 import embedded

PORTRAIT = Path(__file__).parents[3] / "server" / "data" / "astronaut.png"


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    runtime = load_backend("openvino", threads=1)
    finder, net = (
        runtime.load(s, WEIGHTS / "tiny" / f"{s.name}.onnx") for s in (DETECTOR, LANDMARKS)
    )
    rgb = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    points = FaceReader(finder, net).read(rgb).face.landmarks
    return Portrait(rgb, points, crop_transform(points))


def repainted(portrait: Portrait, colour: tuple[int, int, int]) -> Portrait:
    """All that is clearly outside the head: sideways nearly half as far again as the oval, upwards twice."""
    oval = portrait.landmarks[list(OVAL)]
    middle = oval.mean(0)
    kept = Image.new("L", portrait.rgb.shape[1::-1])
    grown = middle + (oval - middle) * [1.45, 2.0]
    ImageDraw.Draw(kept).polygon([(float(x), float(y)) for x, y in grown], fill=255)
    rgb = np.where(np.asarray(kept)[..., None] > 0, portrait.rgb, np.array(colour, np.uint8))
    return Portrait(rgb.astype(np.uint8), portrait.landmarks, portrait.to_crop)


Embed = Callable[[np.ndarray, np.ndarray], np.ndarray]


def test_what_is_behind_a_person_does_not_tell_who_it_is(portrait: Portrait) -> None:
    encoder = MeaninglessEmbedding(512)
    plain = embedded(encoder, portrait)
    assert plain.shape == (512,)
    for colour in ((0, 0, 0), (20, 200, 40), (255, 0, 255)):
        other = repainted(portrait, colour)
        assert np.linalg.norm(embedded(encoder, other) - plain) < 0.01, colour
    seen = encoder(portrait.rgb, portrait.landmarks), encoder(other.rgb, other.landmarks)
    assert np.linalg.norm(seen[0] - seen[1]) > 0.01, "of the whole picture it would"
    inside = portrait.rgb.copy()
    x, y = portrait.landmarks[4].astype(int)
    inside[y - 10 : y + 10, x - 10 : x + 10] = 255
    who = embedded(encoder, Portrait(inside, portrait.landmarks, portrait.to_crop))
    assert np.linalg.norm(who - plain) > 0.01, "the face does"
