from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.backends import load_backend
from engine.backends.base import Array, GraphSpec
from engine.config import EngineConfig
from engine.errors import PortraitRefused
from engine.face.candidates import FaceCrop, decode_cells, tiles
from engine.face.detector import (
    CROP,
    DETECTOR,
    DETECTOR_CELLS,
    LANDMARKS,
    MAX_YAW,
    MIN_FACE_PX,
    SCORE_NAMES,
    FaceReader,
    aligned_crop,
    eye_roll,
    face_box,
)
from engine.face.topology import POINTS


class FakeFinder:
    """Finds faces where it is told: (x, y, side) in units of the squared picture."""

    spec: GraphSpec = DETECTOR

    def __init__(self, *squares: tuple[float, float, float]) -> None:
        self.cells = np.full((1, 4, DETECTOR_CELLS, DETECTOR_CELLS), -9, np.float32)
        for x, y, side in squares:
            row, column = int(y * DETECTOR_CELLS), int(x * DETECTOR_CELLS)
            offset = (x * DETECTOR_CELLS - column - 0.5, y * DETECTOR_CELLS - row - 0.5)
            self.cells[0, :, row, column] = (4.0, *offset, math.log(side))

    def __call__(self, **feeds: Array) -> dict[str, Array]:
        self.spec.check(feeds)
        return {"cells": self.cells.copy()}


class FakeLandmarks:
    """Sees an upright face of the usual size in the middle of every crop."""

    spec: GraphSpec = LANDMARKS

    def __init__(self, yaw: float = 0.0, presence: float = 5.0) -> None:
        self.yaw, self.presence, self.calls = yaw, presence, 0

    def __call__(self, **feeds: Array) -> dict[str, Array]:
        self.spec.check(feeds)
        self.calls += 1
        return {
            "landmarks": upright_face()[None],
            "scores": np.full((1, len(SCORE_NAMES)), 0.25, np.float32),
            "pose": np.array([[self.yaw, 0.1]], np.float32),
            "presence": np.array([[self.presence]], np.float32),
        }


def upright_face() -> np.ndarray:
    """478 points in a square of side 1 / 1.35 in the middle of the unit square, eyes level."""
    rng = np.random.default_rng(0)
    half = 0.5 / 1.35
    points = 0.5 + rng.uniform(-half, half, (POINTS, 2))
    points[10], points[152] = (0.5, 0.5 - half), (0.5, 0.5 + half)
    points[234], points[454] = (0.5 - half, 0.5), (0.5 + half, 0.5)
    points[[33, 133, 362, 263]] = [(0.3, 0.4), (0.4, 0.4), (0.6, 0.4), (0.7, 0.4)]
    return points.astype(np.float32)


def refusal(reader: FaceReader, side: int = 400) -> PortraitRefused:
    with pytest.raises(PortraitRefused) as caught:
        reader.read(np.zeros((side, side, 3), np.uint8))
    return caught.value


def test_cut_shows_what_place_says() -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[120:126, 250:256] = 255  # a dot whose middle is at (253, 123)
    crop = FaceCrop(240, 130, 120, roll=0.4)
    light = crop.cut(Image.fromarray(picture), 96).astype(float).sum(2)
    rows, columns = np.mgrid[:96, :96] + 0.5
    seen = np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum() / 96
    np.testing.assert_allclose(crop.place(seen[None].astype(np.float32))[0], [253, 123], atol=0.25)


def test_cut_averages_when_it_shrinks() -> None:
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = FaceCrop(512, 512, 1024).cut(Image.fromarray(stripes), 128)
    assert np.ptp(crop[4:-4, 4:-4]) < 12
    assert abs(int(crop[64, 64, 0]) - 100) < 8


def test_cut_is_black_outside() -> None:
    crop = FaceCrop(0, 0, 100).cut(Image.new("RGB", (100, 100), "white"), 50)
    assert crop[:23].max() == 0
    assert crop[27:, 27:].min() == 255


@pytest.mark.parametrize("roll", [-0.7, 0.0, 0.3])
def test_aligned_window_puts_the_face_upright_and_central(roll: float) -> None:
    face = FaceCrop(210, 170, 90, roll).place(upright_face())
    crop = aligned_crop(face)
    assert crop.roll == pytest.approx(roll, abs=1e-4)
    assert crop.side == pytest.approx(90, rel=1e-3)
    assert (crop.x, crop.y) == (pytest.approx(210, abs=0.1), pytest.approx(170, abs=0.1))
    assert eye_roll(face) == pytest.approx(roll, abs=1e-4)


def test_decode_reads_offsets_and_drops_overlaps() -> None:
    detector = FakeFinder((0.31, 0.42, 0.2), (0.8, 0.7, 0.1))
    cells = detector.cells[0]
    cells[:, 10, 6] = (3.0, 0.0, -1.0, math.log(0.2))  # the first face again, two cells below
    found = decode_cells(cells, 0.3)
    squares = [(w.x, w.y, w.side) for _, w in found]
    assert len(squares) == 2
    for square, wanted in zip(sorted(squares), [(0.31, 0.42, 0.2), (0.8, 0.7, 0.1)], strict=True):
        assert square == pytest.approx(wanted, abs=1e-5)


def test_decode_finds_nothing_below_the_threshold() -> None:
    assert decode_cells(FakeFinder().cells[0], 0.3) == []


def test_reader_gives_pixels_of_a_picture_that_is_not_square() -> None:
    net = FakeLandmarks(yaw=0.2)
    face = FaceReader(FakeFinder((0.5, 0.5, 0.5)), net).read(np.zeros((300, 400, 3), np.uint8)).face
    left, top, right, bottom = face.box
    assert ((left + right) / 2, (top + bottom) / 2) == (pytest.approx(200), pytest.approx(150))
    assert face.side == pytest.approx(200, rel=0.01)
    assert face.box == pytest.approx(face_box(face.landmarks))
    assert (face.yaw, face.pitch) == (pytest.approx(0.2), pytest.approx(0.1))
    assert face.landmarks.shape == (POINTS, 2)
    assert face.scores.shape == (len(SCORE_NAMES),)
    assert net.calls == 3  # one rough look, two aligned ones


def test_no_candidate_is_no_face() -> None:
    assert refusal(FaceReader(FakeFinder(), FakeLandmarks())).code == "no_face"


def test_candidate_that_the_landmark_net_denies_is_no_face() -> None:
    reader = FaceReader(FakeFinder((0.5, 0.5, 0.5)), FakeLandmarks(presence=-3.0))
    assert refusal(reader).code == "no_face"


def test_of_two_faces_the_largest_talks_unless_one_is_named() -> None:
    reader = FaceReader(FakeFinder((0.75, 0.5, 0.2), (0.25, 0.5, 0.3)), FakeLandmarks())
    picture = np.zeros((600, 600, 3), np.uint8)
    reading = reader.read(picture)
    assert (reading.number, len(reading.boxes)) == (1, 2)
    assert reading.boxes[0] == reading.face.box
    assert reader.read(picture, 2).face.side == pytest.approx(0.2 * 600, rel=0.02)
    with pytest.raises(PortraitRefused, match="2 faces, counted from the left") as caught:
        reader.read(picture, 3)
    assert caught.value.code == "no_such_face"


def test_a_face_that_is_named_is_still_looked_at() -> None:
    reader = FaceReader(FakeFinder((0.25, 0.5, 0.3), (0.75, 0.5, 0.2)), FakeLandmarks())
    with pytest.raises(PortraitRefused) as caught:
        reader.read(np.zeros((300, 300, 3), np.uint8), 2)
    assert caught.value.code == "face_too_small"


@pytest.mark.parametrize("size", [(640, 640), (300, 1000), (1001, 333), (80, 80)])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_parts_of_an_image_cover_it_and_overlap(size: tuple[int, int], parts: int) -> None:
    width, height = size
    seen = np.zeros((height, width), int)
    squares = tiles(width, height, parts)
    for left, top, right, bottom in squares:
        seen[top:bottom, left:right] += 1
        assert right - left <= -(-max(size) // parts)
    assert seen.min() >= 1
    if parts == 1:
        assert squares == [(0, 0, width, height)]


def test_a_far_smaller_face_behind_is_no_rival() -> None:
    reader = FaceReader(FakeFinder((0.3, 0.5, 0.5), (0.8, 0.3, 0.1)), FakeLandmarks())
    face = reader.read(np.zeros((400, 400, 3), np.uint8)).face
    assert face.side == pytest.approx(200, rel=0.01)


def test_small_face_is_refused_with_the_limit() -> None:
    reader = FaceReader(FakeFinder((0.5, 0.5, 0.5)), FakeLandmarks())
    error = refusal(reader, side=2 * MIN_FACE_PX - 20)
    assert error.code == "face_too_small"
    assert str(MIN_FACE_PX) in str(error)


@pytest.mark.parametrize("sign", [-1, 1])
def test_turned_face_is_refused_with_the_angle(sign: int) -> None:
    reader = FaceReader(FakeFinder((0.5, 0.5, 0.5)), FakeLandmarks(yaw=sign * (MAX_YAW + 0.1)))
    error = refusal(reader)
    assert error.code == "turned_away"
    assert f"{math.degrees(MAX_YAW):.0f}" in str(error)


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    backend = load_backend("openvino", threads=2)
    weights = EngineConfig().weights
    return FaceReader(
        backend.load(DETECTOR, weights / "detector.onnx"),
        backend.load(LANDMARKS, weights / "landmarks.onnx"),
    )


ASTRONAUT = Path(__file__).parents[3] / "server" / "data" / "astronaut.png"


def test_shipped_weights_read_the_bundled_portrait(reader: FaceReader) -> None:
    rgb = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    face = reader.read(rgb).face
    right_eye, left_eye, nose, chin = face.landmarks[[468, 473, 1, 152]]
    wanted = {"right": (203.5, 101.1), "left": (246.0, 103.5)}  # the labelling tool's
    unit = float(np.linalg.norm(left_eye - right_eye))
    assert np.linalg.norm(right_eye - wanted["right"]) < 0.12 * unit
    assert np.linalg.norm(left_eye - wanted["left"]) < 0.12 * unit
    assert right_eye[1] < nose[1] < chin[1]
    assert abs(face.yaw) < math.radians(25)
    assert face.scores[SCORE_NAMES.index("mouthSmileLeft")] > 0.3
    assert face.confidence > 0.95


def test_shipped_weights_read_a_tilted_and_shrunk_portrait_alike(reader: FaceReader) -> None:
    picture = Image.open(ASTRONAUT).convert("RGB")
    straight = reader.read(np.asarray(picture)).face
    crop = FaceCrop(256, 256, 512 / 0.9, roll=0.25)
    tilted = reader.read(crop.cut(picture, 512)).face
    back = crop.place(tilted.landmarks / 512)
    unit = np.linalg.norm(straight.landmarks[468] - straight.landmarks[473])
    assert np.linalg.norm(back - straight.landmarks, axis=1).mean() < 0.06 * unit
    assert tilted.roll == pytest.approx(straight.roll - 0.25, abs=0.05)


def test_shipped_weights_count_two_people(reader: FaceReader) -> None:
    rgb = np.asarray(Image.open(ASTRONAUT).convert("RGB"))[:, 80:400]
    pair = np.hstack([rgb, rgb[:, ::-1]])
    assert len(reader.read(pair).boxes) == 2
    assert reader.read(pair, 2).face.box[0] > 320


def test_shipped_weights_find_the_face_of_a_full_figure(reader: FaceReader) -> None:
    scene = Image.new("RGB", (2000, 2160), (120, 130, 120))
    scene.paste(Image.open(ASTRONAUT).convert("RGB").crop((100, 0, 360, 512)), (900, 700))
    face = reader.read(np.asarray(scene)).face
    assert face.side == pytest.approx(112, rel=0.15)
    assert 900 < face.box[0] < face.box[2] < 1160


def test_shipped_weights_refuse_a_tiny_portrait(reader: FaceReader) -> None:
    small = Image.open(ASTRONAUT).convert("RGB").resize((300, 300))
    with pytest.raises(PortraitRefused) as caught:
        reader.read(np.asarray(small))
    assert caught.value.code == "face_too_small"


def test_shipped_weights_refuse_pictures_without_a_face(reader: FaceReader) -> None:
    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    for picture in (
        rng.integers(0, 256, (240, 320, 3), np.uint8),
        np.full((200, 200, 3), 90, np.uint8),
        np.broadcast_to(ramp[:, None, None], (300, 300, 3)).copy(),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 500, 3), np.uint8),
    ):
        with pytest.raises(PortraitRefused, match="No face") as caught:
            reader.read(picture)
        assert caught.value.code == "no_face"


def test_crop_size_is_what_the_graph_takes() -> None:
    crop = FaceCrop(5, 5, 10).cut(Image.new("RGB", (10, 10)), CROP)
    LANDMARKS.check({"crop": crop[None]})
