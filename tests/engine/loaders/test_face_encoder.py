import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from PIL import Image  # noqa: E402
from transformers import (  # noqa: E402
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from engine.errors import WeightsError  # noqa: E402
from engine.face.topology import LEFT_LIDS, OVAL, RIGHT_LIDS  # noqa: E402
from engine.loaders.face_encoder import (  # noqa: E402
    TEMPLATE,
    FaceAndPicture,
    align,
    check_space,
    load_encoder,
    load_face_encoder,
)
from engine.loaders.files import Damaged, WrongFamily  # noqa: E402
from engine.loaders.registry import find, require  # noqa: E402
from tests.engine.loaders.layouts import save  # noqa: E402

pytestmark = pytest.mark.train


def write_clip(folder: Path, *, patch: int = 16, hidden: int = 24) -> CLIPVisionModelWithProjection:
    """A tiny random image encoder of CLIP's in the folder of its checkpoint."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=32,
        projection_dim=24,
        patch_size=patch,
        image_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
    )
    net = CLIPVisionModelWithProjection(config).eval()
    place = (folder / find("clip").files[0]).parent
    save(net.state_dict(), place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(config.to_dict()))
    return net


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
    ("name", "width"),
    [("sface", 128), ("auraface", 512), ("insightface", 512), ("antelopev2", 512)],
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
    fed = np.array(
        [200, 90, 40], np.float32
    )  # red first, as InsightFace's and OpenCV's own code feed
    fed = fed if name == "sface" else (fed - 127.5) / 127.5
    wanted = fed @ np.random.default_rng(0).normal(size=(3, width))
    np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=1e-5)


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
    with pytest.raises(WeightsError, match="known: sface, auraface, insightface, antelopev2, clip"):
        load_face_encoder("arcface", tmp_path)


def test_another_embedding_space_is_refused_even_at_the_same_width() -> None:
    check_space("sface", "sface")
    with pytest.raises(WrongFamily, match="same-looking vectors, another meaning"):
        check_space(find("auraface").space, find("faceid").space)
    check_space(find("insightface").space, find("faceid-portrait").space)


def test_clip_stands_in_for_a_face_encoder(tmp_path: Path) -> None:
    """The paper's ablation: an image encoder whose embedding sees the head, wherever it is."""
    net = write_clip(tmp_path / "IP-Adapter")
    folder = (tmp_path / "IP-Adapter" / find("clip").files[0]).parent
    encoder = load_face_encoder("clip", require("clip", tmp_path))
    assert (encoder.name, encoder.width) == ("clip-vit-h-14", 24)

    landmarks = np.zeros((478, 2), np.float32)
    landmarks[list(OVAL)] = [90, 100]
    landmarks[list(OVAL[:2])] = [[60, 60], [120, 140]]
    rgb = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    vector = encoder(rgb, landmarks)
    square = Image.fromarray(rgb[36:164, 26:154]).resize((32, 32), Image.Resampling.BICUBIC)
    theirs = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, do_center_crop=False)
    pixels = theirs(square, return_tensors="pt").pixel_values
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(net(pixel_values=pixels).image_embeds[0], dim=0)
    np.testing.assert_allclose(vector, wanted.numpy(), atol=1e-5)

    elsewhere = np.zeros((300, 320, 3), np.uint8)
    elsewhere[70:270, 90:290] = rgb
    np.testing.assert_allclose(encoder(elsewhere, landmarks + [90, 70]), vector, atol=1e-6)
    save({"vision_model.x": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(WrongFamily, match="it is of another model"):
        load_face_encoder("clip", require("clip", tmp_path))
    with pytest.raises(WrongFamily, match="same-looking vectors"):
        check_space(find("clip").space, find("faceid").space)


def test_a_pair_gives_the_face_and_what_clip_sees_of_it(tmp_path: Path) -> None:
    """FaceID-Plus' own code: the aligned face at CLIP's size, the last layer but one."""
    net = write_clip(tmp_path / "IP-Adapter")
    write(tmp_path / "insightface" / find("insightface").files[0], 512)
    pair = load_encoder("insightface-clip", lambda part: require(part, tmp_path))
    assert isinstance(pair, FaceAndPicture)
    assert (pair.name, pair.width) == (find("faceid-plus-v2").space, 512 + 5 * 24)
    rgb = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    alone = load_face_encoder("insightface", tmp_path / "insightface")
    small = face((30, 40), 32 / 112)  # the template's points at CLIP's 32 pixels a side
    given = pair(rgb, small)
    np.testing.assert_array_equal(given[:512], alone(rgb, small))

    shorter = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**{**net.config.to_dict(), "num_hidden_layers": 2})
    ).eval()
    shorter.load_state_dict(net.state_dict(), strict=False)
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)(
        Image.fromarray(rgb[40:72, 30:62]), return_tensors="pt"
    ).pixel_values
    with torch.no_grad():
        seen, nothing = (
            shorter.vision_model(pixel_values=x).last_hidden_state[0].numpy()
            for x in (pixels, torch.zeros_like(pixels))
        )
    np.testing.assert_allclose(given[512:].reshape(5, 24), seen, atol=1e-4)
    np.testing.assert_allclose(pair.nothing, nothing, atol=1e-5)
