from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("scipy")

from engine.errors import DataError
from engine.face.candidates import decode_cells
from engine.face.detector import CROP, DETECTOR_CELLS, DETECTOR_SIDE, SCORE_NAMES
from engine.face.topology import POINTS
from engine.training.data.expressions import EDITS, Drawing
from engine.training.data.faces import generate
from engine.training.data.labeller import FaceLabel
from engine.training.face import dataset as face_data
from engine.training.face.crops import CropMaker, jitter
from engine.training.face.scenes import SceneMaker, cell_targets

pytestmark = pytest.mark.train


def face_points() -> np.ndarray:
    """478 points of a face-sized oval; its right eye, left eye and chin where they belong."""
    rng = np.random.default_rng(0)
    points = 0.5 + rng.uniform(-0.2, 0.2, (POINTS, 2))
    points[[10, 152, 234, 454]] = [(0.5, 0.25), (0.5, 0.75), (0.28, 0.5), (0.72, 0.5)]
    points[[33, 133, 362, 263]] = [(0.36, 0.42), (0.45, 0.42), (0.55, 0.42), (0.64, 0.42)]
    return points.astype(np.float32)


def marked_faces(count: int = 6) -> face_data.FaceSet:
    """Grey images with a bright dot at landmark 152, the chin."""
    points = np.repeat(face_points()[None], count, 0)
    images = np.full((count, 320, 320, 3), 60, np.uint8)
    x, y = (points[0, 152] * 320).astype(int)
    images[:, y - 4 : y + 4, x - 4 : x + 4] = 255
    return face_data.FaceSet(
        images,
        points,
        np.zeros((count, len(SCORE_NAMES)), np.float32),
        np.full((count, 2), 0.3, np.float32),
        np.arange(count),
    )


def backgrounds() -> list[np.ndarray]:
    return [np.full((200, 300, 3), 60, np.uint8)]


def test_mirror_points_pairs_left_with_right() -> None:
    rng = np.random.default_rng(1)
    half = rng.uniform(0.05, 1, (200, 2))
    middle = np.c_[np.zeros(78), np.linspace(-1, 1, 78)]
    shape = np.concatenate([half, half * [-1, 1], middle])
    faces = shape[None] + rng.normal(0, 0.003, (400, POINTS, 2))
    partner = face_data.mirror_points(faces.astype(np.float32))
    wanted = np.concatenate([np.arange(200, 400), np.arange(200), np.arange(400, 478)])
    assert (partner == wanted).mean() > 0.99
    assert (partner[partner] == np.arange(POINTS)).all()


def test_head_angles_of_a_turned_head() -> None:
    yaw, pitch = 0.4, -0.2
    turn = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    nod = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3] = np.array(turn) @ np.array(nod)
    assert face_data.head_angles(pose) == pytest.approx((yaw, pitch), abs=1e-5)


def test_split_keeps_a_person_on_one_side() -> None:
    faces = marked_faces(40)
    training, held_out = faces.split()
    assert len(training) + len(held_out) == 40
    assert len(held_out) > 0
    assert not set(training.person) & set(held_out.person)


def test_spoil_is_seeded_and_keeps_the_shape() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    outs = [face_data.spoil(np.random.default_rng([7, i]), picture) for i in range(40)]
    again = [face_data.spoil(np.random.default_rng([7, i]), picture) for i in range(40)]
    for a, b in zip(outs, again, strict=True):
        assert a.shape == picture.shape
        assert a.dtype == np.uint8
        np.testing.assert_array_equal(a, b)
    assert sum(not np.array_equal(a, picture) for a in outs) > 30


def test_labels_follow_the_picture_into_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.face.crops.spoil", lambda rng, picture: picture)
    monkeypatch.setattr("engine.training.face.crops.NEGATIVE_SHARE", 0.0)
    monkeypatch.setattr(CropMaker, "_cover", lambda self, rng, crop, landmarks: crop)
    faces = marked_faces()
    partner = np.arange(POINTS)  # the chin is its own partner
    maker = CropMaker(faces, backgrounds(), partner, np.arange(len(SCORE_NAMES)))
    batch = maker.batch(np.random.default_rng(0), 48)
    checked = 0
    for image, points in zip(batch.images, batch.landmarks, strict=True):
        bright = np.clip(image[..., 0].astype(float) - 120, 0, None)
        if not 0.05 < points[152].min() <= points[152].max() < 0.95:
            continue
        rows, columns = np.mgrid[:CROP, :CROP] + 0.5
        seen = np.array([(columns * bright).sum(), (rows * bright).sum()]) / bright.sum()
        np.testing.assert_allclose(seen, points[152] * CROP, atol=0.8)
        checked += 1
    assert checked > 40
    assert set(np.round(batch.angles[:, 0], 3)) == {np.float32(0.3), np.float32(-0.3)}


def test_crops_stay_near_the_aligned_one() -> None:
    rng = np.random.default_rng(0)
    crops = [jitter(rng, face_points()) for _ in range(200)]
    assert np.median([abs(w.roll) for w in crops]) < 0.15
    assert max(abs(w.roll) for w in crops) < 0.6
    assert max(abs(w.x - 0.5) for w in crops) < 0.25


def test_some_crops_show_no_face() -> None:
    maker = CropMaker(marked_faces(), backgrounds(), np.arange(POINTS), np.arange(52))
    present = maker.batch(np.random.default_rng(0), 200).present
    assert 0.8 < present.mean() < 0.97


def test_cell_targets_decode_to_the_same_squares() -> None:
    squares = [(31.0, 60.0, 30.0), (120.0, 100.0, 64.0), (80.0, 12.0, 13.0)]
    heat, boxes, near = cell_targets(squares)
    assert near.sum() >= 3
    cells = np.concatenate([np.where(heat >= 1, 5, -9)[None], boxes]).astype(np.float32)
    found = sorted((w.x, w.y, w.side) for _, w in decode_cells(cells, 0.5))
    for square, wanted in zip(found, sorted(squares), strict=True):
        assert np.array(square) * DETECTOR_SIDE == pytest.approx(wanted, abs=1e-3)


def test_scenes_hold_the_faces_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = marked_faces()
    faces.images[:] = (200, 20, 20)
    scenes = SceneMaker(faces, backgrounds()).batch(np.random.default_rng(0), 64)
    counts = [len(squares) for squares in scenes.squares]
    assert min(counts) == 0
    assert max(counts) >= 3
    for heat, squares in zip(scenes.heat, scenes.squares, strict=True):
        assert (heat == 1).sum() == len({(int(x // 8), int(y // 8)) for x, y, _ in squares})
    assert scenes.images.shape == (64, DETECTOR_SIDE, DETECTOR_SIDE, 3)
    assert scenes.boxes.shape == (64, 3, DETECTOR_CELLS, DETECTOR_CELLS)


def test_stored_faces_come_back(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((512, 512, 3), 90, np.uint8))
    points = np.c_[face_points(), np.zeros(POINTS)].astype(np.float32)
    label = FaceLabel(points, np.zeros(52, np.float32), np.eye(4, dtype=np.float32))
    face_data._store(tmp_path / "chunk_0000.npz", [(3, picture, label), (4, picture, label)])
    faces = face_data.load(tmp_path)
    assert faces.person.tolist() == [3, 4]
    low, high = faces.landmarks[0].min(0), faces.landmarks[0].max(0)
    np.testing.assert_allclose((low + high) / 2, 0.5, atol=1e-3)
    assert (high - low).max() == pytest.approx(1 / face_data.STORED_SCALE, rel=1e-3)


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gather"):
        face_data.load(tmp_path)


def test_a_resumed_drawing_names_the_scores_of_every_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labeller knows their names once it has labelled; a resumed run begins with a chunk."""

    class Label:
        names: tuple[str, ...] = ()

        def __init__(self, model: Path) -> None:
            pass

        def __call__(self, rgb: np.ndarray) -> FaceLabel:
            self.names = SCORE_NAMES
            zeros = np.zeros(len(SCORE_NAMES), np.float32)
            return FaceLabel(np.zeros((POINTS, 3), np.float32), zeros, np.eye(4, dtype=np.float32))

    class Generator:
        def __init__(self, cache: Path) -> None:
            pass

        def map(self, noise: np.ndarray) -> np.ndarray:
            return noise

        def draw(self, styles: list[np.ndarray]) -> list[np.ndarray]:
            return [np.zeros((64, 64, 3), np.uint8) for _ in styles]

    monkeypatch.setattr("engine.training.data.faces.Labeller", Label)
    monkeypatch.setattr("engine.training.data.faces.FaceGenerator", Generator)
    flat = np.ones(512, np.float32)
    np.savez(tmp_path / "directions.npz", mean=flat, std=flat, **dict.fromkeys(EDITS, flat))
    generate(
        tmp_path,
        Drawing(people=2, edits=3, seed=0),
        cache=tmp_path,
        landmarker=tmp_path / "face_landmarker.task",
    )
    with np.load(tmp_path / "chunk_0000.npz") as saved:
        assert tuple(saved["names"]) == SCORE_NAMES
        assert saved["person"].tolist() == [0, 0, 0, 1, 1, 1]
        assert len(saved["offsets"]) == 7
