"""Reading the public encoder's file: numbers come out as they were stored, other files are refused."""

# ruff: noqa: E402  torch may be missing

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper

from engine.audio.rotary import rotations
from engine.audio.speech_encoder import SPEECH
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.errors import DataError
from engine.nets.moonshine import Memory
from engine.training.speech.exported_encoder import load_exported
from engine.training.speech.moonshine_weights import load_moonshine

pytestmark = pytest.mark.train
H, INNER = 288, 1152
LINEAR = {
    "self_attn/q_proj": (H, H),
    "self_attn/k_proj": (H, H),
    "self_attn/v_proj": (H, H),
    "self_attn/dense": (H, H),
    "mlp/fc1": (H, INNER),
    "mlp/fc2": (INNER, H),
}


def write(path: Path, layers: int = 6) -> dict[str, np.ndarray]:
    """A file laid out as the public one, with random numbers; what each matrix stands for."""
    rng = np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {}
    nodes, meant = [], {}

    def floats(name: str, *shape: int) -> None:
        stored[name] = rng.standard_normal(shape).astype(np.float32)

    for i, shape in enumerate(((H, 1, 127), (2 * H, H, 7), (H, 2 * H, 3)), 1):
        name = f"conv{i}.weight"
        stored[f"{name}_quantized"] = rng.integers(-127, 127, shape, np.int8)
        stored[f"{name}_scale"] = np.array([0.01], np.float32)
        stored[f"{name}_zero_point"] = np.array([0.5], np.float32)  # added, not taken away
        meant[f"stem.conv{i}.weight"] = stored[f"{name}_quantized"] * np.float32(0.01) + 0.5
    floats("conv2.bias", 2 * H)
    floats("conv3.bias", H)
    floats("onnx::Mul_1488", H, 1)
    floats("onnx::Add_1489", H, 1)
    floats("layer_norm.weight", H)
    for i in range(layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            floats(f"layers.{i}.{norm}.weight", H)
        floats(f"layers.{i}.mlp.fc1.bias", INNER)
        floats(f"layers.{i}.mlp.fc2.bias", H)
        for place, shape in LINEAR.items():
            name = f"onnx::MatMul_{len(stored)}"
            stored[f"{name}_quantized"] = rng.integers(0, 255, shape, np.uint8)
            stored[f"{name}_scale"] = np.array(0.02, np.float32)
            stored[f"{name}_zero_point"] = np.array(128, np.uint8)
            out = f"/layers.{i}/{place}/MatMul_output_0_output_quantized"
            inputs = ["x", f"{name}_quantized", "zero", f"{name}_zero_point"]
            nodes.append(helper.make_node("MatMulInteger", inputs, [out]))
            meant[f"{i}/{place}"] = (stored[f"{name}_quantized"].astype(np.float32) - 128) * 0.02
    tensors = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, H])
    graph = helper.make_graph(nodes, "encoder", [x], [], tensors)
    onnx.save(helper.make_model(graph), str(path))
    return meant


def test_every_matrix_is_the_one_that_was_stored(tmp_path: Path) -> None:
    meant = write(tmp_path / "encoder.onnx")
    weights = load_moonshine(tmp_path / "encoder.onnx").state_dict()
    for i in (1, 2, 3):
        got = weights[f"stem.conv{i}.weight"].numpy()
        np.testing.assert_allclose(got, meant[f"stem.conv{i}.weight"], atol=1e-6)
    ours = ("q", "k", "v", "out", "fc1", "fc2")
    for layer in range(6):
        for name, place in zip(ours, LINEAR, strict=True):
            got = weights[f"layers.{layer}.{name}.weight"].numpy()
            np.testing.assert_allclose(got, meant[f"{layer}/{place}"].T, atol=1e-5)


def test_another_network_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "encoder.onnx", layers=5)
    with pytest.raises(DataError, match="not Moonshine tiny's encoder"):
        load_moonshine(tmp_path / "encoder.onnx")


def test_the_exported_encoder_hears_as_its_graph_does(tmp_path: Path) -> None:
    """The weights read back out of `speech.onnx` give what the graph gives."""
    weights = EngineConfig().weights
    model = load_exported(weights / "speech.onnx")
    graph = load_backend("openvino", threads=1).load(SPEECH, weights / "speech.onnx")
    rng = np.random.default_rng(0)
    feeds = {
        t.name: np.abs(0.1 * rng.standard_normal(t.sized(1))).astype(np.float32)
        for t in graph.spec.inputs
    }
    feeds["turns"] = rotations(0, 5)[None]
    memory = Memory(*(torch.from_numpy(feeds[k]) for k in ("level", "pending", "keys", "values")))
    with torch.no_grad():
        heard, after = model.step(torch.from_numpy(feeds["window"]), memory)
    wanted = graph(**feeds)
    np.testing.assert_allclose(heard.numpy(), wanted["features"], atol=1e-3)
    np.testing.assert_allclose(after.keys.numpy(), wanted["keys_after"], atol=1e-3)
    for other in (tmp_path / "missing.onnx", weights / "motion.onnx"):
        with pytest.raises(DataError, match="is not an exported speech encoder"):
            load_exported(other)
