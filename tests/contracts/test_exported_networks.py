"""Every full-size network as a graph, at small size: it computes what torch does, frame after frame, in any batch.

ONNX Runtime runs the graphs, and TensorRT-RTX builds them for a GPU that is not here.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.audio.speech_encoder import HOP
from engine.backends import BATCH, Graph, load_backend
from engine.backends.tensorrt_build import Build, build_engine
from engine.config import DiffusionSettings, EngineConfig
from engine.errors import BackendUnavailable
from engine.nets.portraittalk import PortraitTalkModel
from engine.nets.sd15_config import Sd15Config
from engine.profiles.engines import model_digest, when_there
from engine.render.sd15 import DiffusionRenderer
from engine.render.sd15_graphs import NetworkGraph, other_graphs, step_graph
from engine.render.sd15_step import GraphStep
from exports.onnx import check, write
from tests.contracts.small import stirred

pytestmark = [pytest.mark.train, pytest.mark.timeout(400)]
pytest.importorskip("onnxruntime")
NAMES = ("text", "encode", "decode", "lines", "identify", "reference", "step")
FRAMES = 8
CONFIG = EngineConfig.sd15(
    live=True,
    num_inference_steps=2,
    threads=1,
    diffusion=DiffusionSettings(random_weights="small", device="cpu", sampler="ddim"),
)
Exported = dict[str, tuple[NetworkGraph, Path, float]]


@pytest.fixture(scope="module")
def system() -> tuple[object, DiffusionRenderer]:
    return stirred(CONFIG)


@pytest.fixture(scope="module")
def exported(
    system: tuple[object, DiffusionRenderer], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Each graph, its file, and how far it is from its module, alone and in batches."""
    model, made = system[1].networks.model, {}
    for graph in [*other_graphs(model), step_graph(model)]:
        path = tmp_path_factory.mktemp(graph.spec.name) / f"{graph.spec.name}.onnx"
        wanted = write(graph.module, graph.spec, graph.sample, path)
        worst = check(
            graph.spec,
            graph.sample,
            wanted,
            path,
            tolerance=np.inf,
            runtime="onnxruntime",
            batches=(1, 3, 8),
        )
        made[graph.spec.name] = graph, path, worst
    return made


def loaded(exported: Exported, name: str) -> Graph:
    graph, path, _ = exported[name]
    return load_backend("onnxruntime", threads=1).load(graph.spec, path)


@pytest.mark.parametrize("name", NAMES)
def test_each_graph_computes_what_its_network_does(exported: Exported, name: str) -> None:
    graph, _, worst = exported[name]
    exact = name in ("lines", "decode")  # whole pixels; bytes
    assert worst <= (0 if exact else 1e-3)
    assert all(t.shape[0] == BATCH for t in (*graph.spec.inputs, *graph.spec.outputs))


def test_the_step_reads_and_leaves_a_whole_frame_cache(exported: Exported) -> None:
    spec = exported["step"][0].spec
    read = {t.name.removeprefix("before."): t for t in spec.inputs if t.name.startswith("before.")}
    left = {t.name.removeprefix("after."): t for t in spec.outputs if t.name.startswith("after.")}
    assert len(read) == 2 * (16 + 7), "keys and values of both networks' attentions"
    assert {n: t.shape for n, t in read.items()} == {n: t.shape for n, t in left.items()}


def test_a_line_drawn_by_the_graph_is_the_same_to_the_pixel(exported: Exported) -> None:
    """Faces that reach beyond the edge, and lines of every slope."""
    graph, _, _ = exported["lines"]
    runs = loaded(exported, "lines")
    rng = np.random.default_rng(3)
    for spread in (0.1, 0.5, 0.8):
        faces = (0.5 + spread * rng.uniform(-1, 1, (4, 478, 2))).astype(np.float32)
        drawn = runs(landmarks=faces)[graph.spec.outputs[0].name]
        np.testing.assert_array_equal(drawn, graph.module(torch.from_numpy(faces)).numpy())
        assert drawn.max() > 0


def test_eight_frames_with_the_cache_fed_back_are_those_of_torch(
    system: tuple[object, DiffusionRenderer], exported: Exported
) -> None:
    """Keys and values pass from graph to graph, and every later frame builds on all before."""
    model, graph = system[1].networks.model, exported["step"][0]
    step = GraphStep(loaded(exported, "step"), (1, 2, 4, 8), model)
    arguments = graph.module._arguments
    z, t, told, guide, _ = arguments
    kept, same, worst = None, None, 0.0
    with torch.inference_mode():
        for frame in range(FRAMES):
            noisy = z + 0.3 * frame
            wanted, kept = model(noisy, t, told, guide, kept)
            got, same = step(noisy, t, told, guide, same)
            worst = max(worst, float((got - wanted).abs().max()))
            for ours, theirs in zip(same[0] + same[1], kept[0] + kept[1], strict=True):
                for a, b in zip(ours, theirs, strict=True):
                    worst = max(worst, float((a - b).abs().max()))
    assert worst <= 1e-3
    assert step.taken == FRAMES - 1, "the first frame has none before it: it is torch's"


def test_frames_go_on_the_same_when_the_graph_takes_over_in_the_middle(
    system: tuple[object, DiffusionRenderer], exported: Exported, portrait: np.ndarray
) -> None:
    engine, renderer = system
    identity = engine.enroll(portrait)
    sound = (0.2 * np.random.default_rng(0).standard_normal((10, HOP))).astype(np.float32)
    plain = engine.start(identity, seed=4)
    wanted = [frame.rgb for hop in sound for frame in engine.step(plain, hop)]
    networks = renderer.networks
    before = networks.step
    found: list[Graph] = []
    drawn, state = [], engine.start(identity, seed=4)
    try:
        waiting = when_there(
            lambda: found[0] if found else None,
            lambda graph: networks.take_over(graph, (1,)),
            every_s=0.01,
        )
        for number, hop in enumerate(sound):
            if number == 5:
                assert networks.step is before, "torch draws until the engine is there"
                found.append(loaded(exported, "step"))
                waiting.join(30)
            drawn += [frame.rgb for frame in engine.step(state, hop)]
        taken = networks.step.taken
    finally:
        networks.step = before
    assert taken == 5 * 2, "two steps of each frame after it came"
    difference = np.abs(np.stack(drawn).astype(int) - np.stack(wanted).astype(int))
    assert len(drawn) == 8
    assert difference.max() <= 1
    assert np.abs(np.diff(np.stack(wanted).astype(int), axis=0)).max() > 1


def test_what_cannot_load_is_said_once_and_torch_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def find() -> None:
        raise BackendUnavailable("no driver")

    thread = when_there(find, lambda found: None)
    thread.join(10)
    assert not thread.is_alive()
    assert [r.getMessage() for r in caplog.records] == ["no driver; torch goes on"]
    assert isinstance(thread, threading.Thread)


def test_other_weights_settings_or_precision_are_another_engine() -> None:
    base = model_digest(CONFIG, "f16")
    assert base == model_digest(CONFIG, "f16")
    assert base != model_digest(CONFIG, "f32")
    talk = DiffusionSettings(random_weights="small", device="cpu", conditioning="difftalk")
    assert base != model_digest(EngineConfig.sd15(live=True, diffusion=talk), "f16")
    attended = replace(CONFIG, diffusion=replace(CONFIG.diffusion, injection="cross_attention"))
    assert base != model_digest(attended, "f16")


@pytest.mark.slow
def test_a_step_that_attends_to_its_guidance_is_exported_like_any_other(tmp_path: Path) -> None:
    how = DiffusionSettings(random_weights="small", device="cpu", injection="cross_attention")
    _, renderer = stirred(EngineConfig.sd15(live=True, threads=1, diffusion=how))
    model = renderer.networks.model
    graph = step_graph(model)
    assert {t.name for t in graph.spec.inputs} == {
        t.name for t in step_graph(PortraitTalkModel.build(Sd15Config.small())).spec.inputs
    }
    path = tmp_path / "step.onnx"
    wanted = write(graph.module, graph.spec, graph.sample, path)
    check(
        graph.spec,
        graph.sample,
        wanted,
        path,
        tolerance=1e-3,
        runtime="onnxruntime",
        batches=(1, 3),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_graph_becomes_an_engine_without_a_gpu(exported: Exported, name: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'portraittalk[rtx]'")
    graph, path, _ = exported[name]
    how = Build(runtime="tensorrt-rtx", target="sm89", batches=(1,))
    assert build_engine(graph.spec, path, how).nbytes > 100_000
