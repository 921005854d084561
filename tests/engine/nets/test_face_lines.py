import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.face import topology as t  # noqa: E402
from engine.nets.face_lines import FaceLines, connections, line_spans  # noqa: E402

pytestmark = pytest.mark.train

# What OpenCV's `line` draws, thickness 2, from (3, 2) to (9, 5) and from (3, 2) to (3, 6).
SLANTED = """
............
...#........
..####......
...#####....
.....#####..
.......####.
.........#..
............
"""
UPRIGHT = """
............
...#........
..###.......
..###.......
..###.......
..###.......
..###.......
...#........
"""


def raster(start: tuple[int, int], end: tuple[int, int], h: int, w: int) -> np.ndarray:
    low, high = line_spans(torch.tensor(start), torch.tensor(end), h)
    x = torch.arange(w)
    return ((x >= low[:, None]) & (x <= high[:, None])).numpy()


def annotate(landmarks: np.ndarray, h: int, w: int) -> np.ndarray:
    """The annotator with OpenCV itself: drawn blue-green-red, channels reversed at the end."""
    cv2 = pytest.importorskip("cv2")
    canvas = np.zeros((h, w, 3), np.uint8)
    size = np.array([w, h])
    pixels = np.minimum(np.floor(landmarks.astype(np.float64) * size), size - 1).astype(int)
    inside = ((landmarks >= 0) & (landmarks <= 1)).all(-1)
    brows = ((276, 283, 282, 295, 285), (46, 53, 52, 65, 55))
    lips = (t.OUTER_LOWER_LIP, t.OUTER_UPPER_LIP, t.INNER_LOWER_LIP, t.INNER_UPPER_LIP)
    for colour, lines in (
        ((10, 200, 10), (t.OVAL,)),
        ((180, 200, 10), (t.LEFT_EYE,)),
        ((180, 220, 10), (t.LEFT_BROW, brows[0])),
        ((10, 200, 180), (t.RIGHT_EYE,)),
        ((10, 220, 180), (t.RIGHT_BROW, brows[1])),
        ((10, 180, 10), lips),
    ):
        for a, b in (pair for line in lines for pair in pairwise(line)):
            if inside[a] and inside[b]:
                cv2.line(canvas, pixels[a].tolist(), pixels[b].tolist(), colour, 2)
    for landmark, colour in ((468, (10, 200, 250)), (473, (250, 200, 10))):
        if ((landmarks[landmark] >= 0) & (landmarks[landmark] < 1)).all():
            x, y = pixels[landmark]
            canvas[y - 2 : y + 2, x - 2 : x + 2] = colour
    return canvas[..., ::-1]


def face(seed: int, spread: float = 0.25) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.5 + spread * rng.uniform(-1, 1, (478, 2))).astype(np.float32)


@pytest.mark.parametrize(
    ("end", "drawn"), [((9, 5), SLANTED), ((3, 6), UPRIGHT)], ids=["slanted", "upright"]
)
def test_a_line_covers_the_pixels_written_down(end: tuple[int, int], drawn: str) -> None:
    wanted = np.array([[c == "#" for c in row] for row in drawn.split()])
    assert (raster((3, 2), end, 8, 12) == wanted).all()


def test_any_line_equals_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    starts, ends = rng.integers(2, 46, (2, 400, 2))
    low, high = line_spans(torch.tensor(starts), torch.tensor(ends), 48)
    x = torch.arange(48)
    ours = ((x >= low[..., None]) & (x <= high[..., None])).numpy()
    for start, end, covered in zip(starts, ends, ours, strict=True):
        canvas = np.zeros((48, 48), np.uint8)
        cv2.line(canvas, start.tolist(), end.tolist(), 1, 2)
        assert (covered == (canvas > 0)).all(), (start, end)


@pytest.mark.parametrize(("h", "w"), [(64, 64), (256, 192), (512, 512)])
def test_a_face_equals_the_annotator(h: int, w: int) -> None:
    landmarks = np.stack([face(i) for i in range(2)])
    image = FaceLines(h, w)(torch.from_numpy(landmarks))
    drawn = (image.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    assert image.dtype == torch.float32
    for ours, points in zip(drawn, landmarks, strict=True):
        assert (ours == annotate(points, h, w)).all()


def test_a_face_half_outside_differs_only_at_the_edge() -> None:
    landmarks = face(5, spread=0.6)
    ours = FaceLines(128)(torch.from_numpy(landmarks)[None])[0].permute(1, 2, 0).mul(255).round()
    differs = (ours.byte().numpy() != annotate(landmarks, 128, 128)).any(-1)
    assert differs[2:-2, 2:-2].sum() == 0
    assert differs.sum() <= 8


def test_the_annotator_draws_every_contour_of_the_topology() -> None:
    assert len(connections()) == 36 + 2 * 16 + 2 * 8 + 40


def test_the_drawing_can_live_inside_an_exported_graph(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    lines = FaceLines(64)
    landmarks = torch.from_numpy(np.stack([face(3), face(4, spread=0.6)]))
    path = tmp_path / "lines.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            lines, (landmarks,), str(path), opset_version=17, input_names=["p"], dynamo=False
        )
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert (session.run(None, {"p": landmarks.numpy()})[0] == lines(landmarks).numpy()).all()
