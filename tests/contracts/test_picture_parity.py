"""What is exported computes what the modules compute, in both run times."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.backends import BATCH, GraphSpec, TensorSpec, load_backend
from engine.config import EngineConfig
from engine.errors import BackendUnavailable, ExportMismatch, WeightsError
from engine.face.matte import MATTE
from engine.face.topology import STABLE
from engine.nets.painter import Painter
from engine.render.base import FrameCondition, Portrait
from engine.render.compositing import Compositor
from engine.render.eyelids import make_lids
from engine.render.specs import DENOISE, SPECS, WARP
from engine.render.tiny import TinyRenderer
from engine.render.tiny_face import TinyFace
from exports.onnx import export
from exports.picture import export_picture, samples

pytestmark = pytest.mark.train
SMALL = GraphSpec("small", (TensorSpec("x", (BATCH, 3)),), (TensorSpec("y", (BATCH, 3)),))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Painter, Path]:
    torch.manual_seed(0)
    painter, out = Painter().eval(), tmp_path_factory.mktemp("graphs")
    with torch.no_grad():
        for p in painter.parameters():
            p.add_(0.02 * torch.randn_like(p))
    errors = export_picture(painter, out)
    assert set(errors) == {spec.name for spec in SPECS}
    return painter, out


def test_both_run_times_agree(exported: tuple[Painter, Path]) -> None:
    painter, out = exported
    feeds = samples(painter)
    for spec in SPECS:
        strict = GraphSpec(spec.name, spec.inputs, spec.outputs, precision="f32")
        first, second = (
            load_backend(name, threads=2).load(strict, out / f"{spec.name}.onnx")(
                **{n: t.numpy() for n, t in feeds[spec.name].items()}
            )
            for name in ("openvino", "onnxruntime")
        )
        for tensor in spec.outputs:
            a, b = first[tensor.name].astype(np.float64), second[tensor.name].astype(np.float64)
            limit = 1.0 if tensor.dtype == "uint8" else 2e-3
            assert np.abs(a - b).max() <= limit, (spec.name, tensor.name)


class Fickle(nn.Module):
    """Computes something else each time it is asked."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return x + self.calls


def test_an_export_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportMismatch, match="largest difference"):
        export(Fickle(), SMALL, {"x": torch.zeros(1, 3)}, tmp_path / "small.onnx")


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_bad_weight_files_are_refused_in_words(backend: str, tmp_path: Path) -> None:
    runtime = load_backend(backend, threads=1)
    with pytest.raises(WeightsError, match="no file"):
        runtime.load(WARP, tmp_path / "missing.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x08not a graph")
    with pytest.raises(WeightsError, match="not a readable"):
        runtime.load(WARP, tmp_path / "broken.onnx")
    export(nn.Identity(), SMALL, {"x": torch.zeros(1, 3)}, tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match="lacks"):
        runtime.load(DENOISE, tmp_path / "other.onnx")


def test_a_wrong_tensor_is_named(exported: tuple[Painter, Path]) -> None:
    graph = load_backend("openvino", threads=1).load(WARP, exported[1] / "warp.onnx")
    feeds = {n: t.numpy() for n, t in samples(exported[0])["warp"].items()}
    with pytest.raises(ValueError, match="source: wants float32"):
        graph(**{**feeds, "source": feeds["source"][:, :10]})
    with pytest.raises(ValueError, match="wants inputs"):
        graph(**{k: v for k, v in feeds.items() if k != "target"})


def test_an_unknown_run_time_is_refused() -> None:
    with pytest.raises(
        BackendUnavailable,
        match="known: cuda, onnxruntime, openvino, ort-tensorrt, tensorrt, tensorrt-rtx",
    ):
        load_backend("abacus", threads=1)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_graphs_sample_as_the_trained_network_does(
    exported: tuple[Painter, Path], steps: int
) -> None:
    painter, out = exported
    runtime = load_backend("onnxruntime", threads=1)
    own = lambda spec: EngineConfig().weights if spec is MATTE else out
    load = lambda spec: runtime.load(spec, own(spec) / f"{spec.name}.onnx")
    renderer = TinyRenderer(load, steps)
    feeds = samples(painter)
    crop = feeds["warp"]["crop"]
    steady = list(STABLE)
    feeds["warp"]["level"][:, steady] = feeds["warp"]["source"][:, steady]
    with torch.no_grad():
        reference = painter.enroll(crop)
        points = (feeds["warp"]["source"], feeds["warp"]["level"])
        condition = painter.condition(crop, reference, *points, torch.zeros(1, 6))
        cache, noise = painter.cold(reference), painter.noise(1)
        painted, trust, made = painter.sample(condition, reference, cache, noise, steps)
        wanted = torch.cat([painted - trust * condition.warped, trust], 1)
    rgb = np.full((200, 200, 3), 128, np.uint8)
    to_crop = np.array([[0.01, 0, -0.5], [0, 0.01, -0.5]], np.float32)
    landmarks = 200 * points[0][0].numpy()
    kept = {"latents": reference.latents, "identity": reference.identity}
    kept |= {f"reference{i}": key for i, key in enumerate(reference.keys)}
    face = TinyFace(
        crop=crop.numpy(),
        source=points[0].numpy(),
        lines=feeds["warp"]["reference_maps"].numpy(),
        steady=points[0][0, steady].numpy(),
        kept={name: tensor.numpy() for name, tensor in kept.items()},
        composite=Compositor(load, np.asarray).prepare(Portrait(rgb, landmarks, to_crop)),
        lids=make_lids(rgb, landmarks),
    )
    condition = FrameCondition(
        points[1][0].numpy(), np.zeros(2, np.float32), np.zeros(6, np.float32), noise.numpy()
    )
    [(_, after)] = renderer.draw([(face, renderer.cold(face), condition)])
    assert after.patch is not None
    np.testing.assert_allclose(after.patch, wanted, atol=5e-3)
    np.testing.assert_allclose(after.latents, made.latents, atol=5e-3)
