"""Rows of several streams in one run: grouped, stacked, split, and the same as alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audio.speech_encoder import SPEECH
from engine.backends import Backend, Graph, GraphSpec, TensorSpec, load_backend
from engine.backends.base import in_groups, rounds
from engine.config import EngineConfig
from engine.face.detector import DETECTOR, LANDMARKS
from engine.motion.decoder import MOTION
from engine.render.specs import COMPOSITE, MOVE, SPECS

ALL = (*SPECS, SPEECH, MOTION, DETECTOR, LANDMARKS)
SIZES = {"H": 64, "W": 48, "h": 30, "w": 26, "w2": 52, "a": 17, "b": 15}
ANY = GraphSpec("any", (TensorSpec("x", ("B", "n")),), (TensorSpec("y", ("B", "n")),))


def path(spec: GraphSpec) -> Path:
    return EngineConfig().weights / f"{spec.name}.onnx"


def row(spec: GraphSpec, seed: int) -> dict[str, np.ndarray]:
    """Plausible feeds of one stream."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for tensor in spec.inputs:
        shape = [1 if d == "B" else SIZES.get(str(d), d) for d in tensor.shape]
        if tensor.dtype == "uint8":
            feeds[tensor.name] = rng.integers(0, 256, shape, np.uint8)
        else:
            feeds[tensor.name] = rng.uniform(0, 0.5, shape).astype(np.float32)
    return feeds


@given(st.lists(st.integers(1, 3), max_size=20), st.integers(1, 9))
def test_groups_are_alike_small_enough_and_hold_everyone_once(sizes: list[int], most: int) -> None:
    rows = [{"x": np.zeros((1, n), np.float32)} for n in sizes]
    groups = in_groups(ANY, rows, most)
    assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
    for group in groups:
        assert len({sizes[i] for i in group}) == 1
        assert len(group) <= most
        assert len(group).bit_count() == 1


def test_rounds_name_who_has_work_left() -> None:
    assert list(rounds([2, 0, 3])) == [(0, [0, 2]), (1, [0, 2]), (2, [2])]
    assert list(rounds([])) == []


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_every_tensor_has_one_free_batch(spec: GraphSpec) -> None:
    for tensor in (*spec.inputs, *spec.outputs):
        assert tensor.shape.count("B") == 1


@pytest.fixture(scope="module")
def device() -> Backend:
    """ONNX Runtime with tensors bound in place, as on a GPU, in the CPU's own memory."""
    ort = pytest.importorskip("engine.backends.onnxruntime")
    runtime: Backend = ort.OnnxRuntimeBackend(1, ort.on_cpu, device="cpu", rows=4)
    return runtime


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_a_row_is_the_same_in_any_company(spec: GraphSpec) -> None:
    strict = GraphSpec(spec.name, spec.inputs, spec.outputs, "f32", light=True)
    together = load_backend("openvino", threads=1, rows=2).load(strict, path(spec))
    rows = [row(spec, seed) for seed in range(3)]
    made = together.each(rows)
    for feeds, out in zip(rows, made, strict=True):
        alone = together(**feeds)
        for tensor in spec.outputs:
            np.testing.assert_array_equal(out[tensor.name], alone[tensor.name])


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_device_memory_gives_what_arrays_give(spec: GraphSpec, device: Backend) -> None:
    plain: Graph = load_backend("onnxruntime", threads=1).load(spec, path(spec))
    bound = device.load(spec, path(spec))
    rows = [row(spec, seed) for seed in range(2)]
    put = [{name: device.put(array) for name, array in feeds.items()} for feeds in rows]
    for out, wanted in zip(bound.each(put), plain.each(rows), strict=True):
        for tensor in spec.outputs:
            got = np.asarray(out[tensor.name])
            assert got.dtype == np.dtype(tensor.dtype)
            np.testing.assert_allclose(
                got.astype(float), wanted[tensor.name].astype(float), atol=1e-3, rtol=1e-3
            )


def test_rows_made_together_go_on_together_without_a_copy(device: Backend) -> None:
    """The memory of streams that stay in step is fed back as it lies."""
    motion = device.load(MOTION, path(MOTION))
    rows = [row(MOTION, seed) for seed in range(4)]
    first = motion.each(rows)
    memories = [out["memory_after"] for out in first]
    assert len({id(memory.batch) for memory in memories}) == 1
    again = [{**feeds, "memory": memory} for feeds, memory in zip(rows, memories, strict=True)]
    apart = [
        {**feeds, "memory": np.asarray(memory)}
        for feeds, memory in zip(rows, memories, strict=True)
    ]
    shuffled = [again[i] for i in (2, 0, 3, 1)]
    for a, b in zip(motion.each(again), motion.each(apart), strict=True):
        np.testing.assert_array_equal(np.asarray(a["coefficients"]), np.asarray(b["coefficients"]))
    for i, out in zip((2, 0, 3, 1), motion.each(shuffled), strict=True):
        wanted = motion.each(again)[i]
        np.testing.assert_allclose(
            np.asarray(out["coefficients"]), np.asarray(wanted["coefficients"]), atol=1e-5
        )


@pytest.mark.parametrize("spec", [MOVE, COMPOSITE], ids=lambda spec: spec.name)
def test_frames_of_two_sizes_are_drawn_apart(spec: GraphSpec) -> None:
    graph = load_backend("openvino", threads=1, rows=4).load(
        GraphSpec(spec.name, spec.inputs, spec.outputs, "f32", light=True), path(spec)
    )
    small, large = row(spec, 0), row(spec, 1)
    large = {
        name: np.concatenate([array, array], 1)
        if name in ("moved", "down")
        else np.concatenate([array, array], 2)
        if name in ("person", "behind")
        else array
        for name, array in large.items()
    }
    for out, alone in zip(graph.each([small, large, small]), (small, large, small), strict=True):
        name = spec.outputs[0].name
        np.testing.assert_array_equal(out[name], graph(**alone)[name])


def test_inputs_that_disagree_about_their_rows_are_refused() -> None:
    graph = load_backend("openvino", threads=1).load(MOTION, path(MOTION))
    feeds = row(MOTION, 0)
    with pytest.raises(ValueError, match="rows"):
        graph(**{**feeds, "noise": np.concatenate([feeds["noise"]] * 2)})
