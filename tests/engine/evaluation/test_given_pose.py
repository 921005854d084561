"""A film drives the frames; what is left when a part of the renderer is left out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from engine.config import HOP_SAMPLES
from engine.errors import DataError
from engine.evaluation.given_pose import PoseGivenEngine
from engine.evaluation.systems import load, marked
from engine.types import RgbImage
from server.settings import BUNDLED_PORTRAIT

SHIFT = 12  # pixels


@pytest.fixture(scope="module")
def portrait() -> RgbImage:
    return np.asarray(Image.open(BUNDLED_PORTRAIT).convert("RGB").crop((96, 0, 352, 256)))


def drawn(engine: PoseGivenEngine, portrait: RgbImage, silence: int = 0) -> list[RgbImage]:
    """Frames of four, before which nothing is heard for some."""
    state = engine.start(engine.enroll(portrait))
    pcm = np.concatenate([np.zeros(silence * HOP_SAMPLES), marked(np.zeros(4 * HOP_SAMPLES))])
    frames = engine.step(state, pcm.astype(np.float32)) + engine.flush(state)
    return [frame.rgb for frame in frames]


def middle(rgb: RgbImage, other: RgbImage) -> float:
    """Mean difference of the middle of two pictures, where the face is."""
    part = (slice(64, 192), slice(64, 192))
    return float(np.abs(rgb[part].astype(float) - other[part]).mean())


def test_the_face_goes_where_the_film_has_it(portrait: RgbImage) -> None:
    engine = load("warp", "pose-given")
    assert isinstance(engine, PoseGivenEngine)
    moved = np.roll(portrait, SHIFT, axis=1)
    blank = np.zeros_like(portrait)
    track = engine.follow([portrait, moved, moved, blank])
    assert track.lost == 1
    frames = drawn(engine, portrait)
    assert middle(frames[0], portrait) < 0.5  # nothing moves, nothing is painted
    assert middle(frames[1], moved) < 0.5 * middle(portrait, moved)
    late = drawn(engine, portrait, silence=3)
    assert all((a == b).all() for a, b in zip(late[3:], frames, strict=True))


def test_a_film_without_a_face_is_refused(portrait: RgbImage) -> None:
    engine = load("warp", "pose-given")
    assert isinstance(engine, PoseGivenEngine)
    with pytest.raises(DataError, match="first frame has no face"):
        engine.follow([np.zeros_like(portrait)])


@pytest.mark.parametrize("name", ["warp", "no-animatenet", "no-cache"])
def test_a_part_that_is_left_out_shows_in_the_second_frame(portrait: RgbImage, name: str) -> None:
    def second(system: str) -> RgbImage:
        engine = load(system, "pose-given")
        assert isinstance(engine, PoseGivenEngine)
        engine.follow([portrait, np.roll(portrait, SHIFT, axis=1)])
        return drawn(engine, portrait)[1]

    assert (second(name) != second("offline")).any()
