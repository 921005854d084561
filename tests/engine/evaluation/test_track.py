"""One reader gives a video's lips, head and lids; a frame without a face has those of its neighbour."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engine.evaluation.track import enlarge, face_reader, follow
from engine.face.detector import aligned_crop
from engine.face.landmarks import lip_gap
from server.settings import BUNDLED_PORTRAIT

pytestmark = pytest.mark.train


def test_small_pictures_are_enlarged_for_the_public_landmarker_and_large_ones_left() -> None:
    assert enlarge(np.zeros((128, 256, 3), np.uint8)).shape == (256, 512, 3)
    large = np.zeros((600, 480, 3), np.uint8)
    assert enlarge(large) is large


def test_the_public_landmarker_reads_in_place_of_our_nets() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0.2, 0.8, (478, 3)).astype(np.float32)
    points[[10, 152], :2] = [[0.5, 0.1], [0.5, 0.9]]
    points[[13, 14], :2] = [[0.5, 0.60], [0.5, 0.62]]
    moved = points + np.float32([0.05, 0, 0])
    scores = np.zeros(52, np.float32)
    scores[9:11] = 0.2, 0.6
    labels = [
        p if p is None else SimpleNamespace(landmarks=p, scores=scores, pose=np.eye(4))
        for p in (None, points, moved, points, None)
    ]
    track = follow(np.zeros((5, 512, 512, 3), np.uint8), label=lambda rgb: labels.pop(0))  # type: ignore[arg-type]
    assert track.found.tolist() == [False, True, True, True, False]
    assert track.lips[:, 0] == pytest.approx([0.025] * 5)
    assert track.lids == pytest.approx([0.4] * 5)
    assert track.landmarks[0] == pytest.approx(points[:, :2] * 512)
    span = np.linalg.norm(points[33, :2] - points[263, :2])
    assert track.head[:, 3] == pytest.approx([0, 0, 5 / span, 0, 0], abs=0.01)
    assert track.head[:, :2] == pytest.approx(np.zeros((5, 2)), abs=1e-5)
    assert track.notes("film") == ["film: no face in 2 of 5 frames; they are left out"]
    part = track.part(1, 4)
    assert part.found.all()
    assert part.lips.shape == (3, 2)


def test_each_frame_is_read_where_the_face_of_the_one_before_was() -> None:
    portrait = np.asarray(Image.open(BUNDLED_PORTRAIT).convert("RGB").crop((96, 0, 352, 256)))
    frames = np.stack([portrait, np.roll(portrait, 4, axis=1)])
    reader = face_reader()
    at = reader.read(portrait).face.landmarks
    wanted = []
    for rgb in frames:
        at = reader.look(Image.fromarray(rgb), aligned_crop(at)).landmarks
        wanted.append(at)
    track = follow(frames)
    assert np.array_equal(track.landmarks, np.stack(wanted))
    assert track.lips[:, 0] == pytest.approx(lip_gap(np.stack(wanted)))
    assert track.rivals == 0
