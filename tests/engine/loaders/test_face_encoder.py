from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from engine.errors import WeightsError  # noqa: E402
from engine.face.topology import LEFT_LIDS, RIGHT_LIDS  # noqa: E402
from engine.loaders.face_encoder import (  # noqa: E402
    TEMPLATE,
    align,
    check_space,
    load_face_encoder,
)
from engine.loaders.files import Damaged, WrongFamily  # noqa: E402
from engine.loaders.registry import find  # noqa: E402

pytestmark = pytest.mark.train


def write(path: Path, width: int, side: int = 112) -> None:
    """A network of the right outside: the mean of each channel, spread over `width` numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = np.random.default_rng(0).normal(size=(3, width)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["data"], ["mean"]),
        onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["fc1"]),
    ]
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("data", float32, [1, 3, side, side])],
        [onnx.helper.make_tensor_value_info("fc1", float32, [1, width])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def face(offset: tuple[float, float], size: float) -> np.ndarray:
    """Landmarks whose five points lie where the template wants them, moved and scaled."""
    points = np.zeros((478, 2), np.float32)
    five = TEMPLATE * size + offset
    for lids, place in ((RIGHT_LIDS, five[0]), (LEFT_LIDS, five[1])):
        points[[p for row in lids for p in row]] = place
    points[1], points[61], points[291] = five[2], five[3], five[4]
    return points


def test_the_face_is_brought_to_the_template() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (260, 300, 3), dtype=np.uint8)
    crop = align(rgb, face((40, 30), 1.0))
    wanted = rgb[30:142, 40:152].transpose(2, 0, 1)[None]
    assert np.abs(crop - wanted).max() < 0.1


@pytest.mark.parametrize(
    ("name", "width"), [("sface", 128), ("auraface", 512), ("insightface", 512)]
)
def test_each_encoder_gives_unit_vectors_of_its_width(
    tmp_path: Path, name: str, width: int
) -> None:
    write(tmp_path / name / find(name).files[0], width)
    encoder = load_face_encoder(name, tmp_path / name)
    rgb = np.full((200, 200, 3), (200, 90, 40), np.uint8)
    vector = encoder(rgb, face((40, 40), 1.0))
    assert (encoder.name, encoder.width, vector.shape) == (find(name).space, width, (width,))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "sface" / find("sface").files[0]
    with pytest.raises(WeightsError, match="bring it with: hf download opencv"):
        load_face_encoder("sface", tmp_path / "sface")
    with pytest.raises(WeightsError, match="copy your w600k_r50.onnx"):
        load_face_encoder("insightface", tmp_path / "insightface")
    write(path, 512)
    with pytest.raises(WrongFamily, match="sface takes 3 x 112 x 112 and gives 128 numbers"):
        load_face_encoder("sface", tmp_path / "sface")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(Damaged, match="damaged or no ONNX file"):
        load_face_encoder("sface", tmp_path / "sface")
    with pytest.raises(WeightsError, match="known: sface, auraface, insightface"):
        load_face_encoder("arcface", tmp_path)


def test_another_embedding_space_is_refused_even_at_the_same_width() -> None:
    check_space("sface", "sface")
    with pytest.raises(WrongFamily, match="same-looking vectors, another meaning"):
        check_space(find("auraface").space, find("faceid").space)
    check_space(find("insightface").space, find("faceid-portrait").space)
