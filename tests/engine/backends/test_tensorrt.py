"""TensorRT's engines, as far as a machine without a GPU can tell: that they build, are kept, and are bound right.

Every graph of both profiles is built for a GPU that is not here. What runs engines is tried with the host's
memory in the place of a device's and ONNX Runtime in the place of TensorRT: it is given addresses alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.audio.speech_encoder import SPEECH
from engine.backends import GraphSpec, load_backend
from engine.backends.base import stack_rows
from engine.backends.device_arrays import KEPT, DeviceArray, Pool
from engine.backends.engine_file import EngineKey, engine_folder, read_engine, write_engine
from engine.backends.tensorrt import RECORDED, TensorRtGraph
from engine.backends.tensorrt_build import BATCHES, Build, build_engine, check_target, shapes
from engine.config import EngineConfig
from engine.errors import AvatarError, BackendUnavailable, WeightsError
from engine.motion.decoder import MOTION
from engine.render.specs import COMPOSITE, DECODE, DENOISE, GUIDE
from exports.engines import TINY
from server.cli import app

pytest.importorskip("onnxruntime")
WEIGHTS = EngineConfig().weights
KEY = EngineKey(
    graph="decode",
    weights="w",
    target="sm89",
    library="tensorrt_rtx 1.7",
    precision="any",
    profiles=("x:1",),
)


def graph(spec: GraphSpec) -> Path:
    return WEIGHTS / f"{spec.name}.onnx"


# Files of engines


def test_an_engine_is_found_by_what_it_was_built_of_and_by_nothing_else(tmp_path: Path) -> None:
    write_engine(tmp_path, KEY, b"plan")
    assert read_engine(tmp_path, KEY) == b"plan"
    for field, value in (
        ("graph", "denoise"),
        ("weights", "v"),
        ("target", "sm120"),
        ("library", "tensorrt_rtx 1.8"),
        ("precision", "f32"),
        ("profiles", ("x:1", "x:2")),
        ("options", "o"),
    ):
        other = EngineKey(**{**{f: getattr(KEY, f) for f in KEY.__slots__}, field: value})
        assert read_engine(tmp_path, other) is None, field


def test_a_foreign_or_damaged_engine_is_not_taken_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = write_engine(tmp_path, KEY, b"plan" * 1000)
    whole = path.read_bytes()
    for harm in (whole[:-1], whole[:20], b"", whole.replace(b"planplan", b"planplam", 1)):
        path.write_bytes(harm)
        caplog.clear()
        assert read_engine(tmp_path, KEY) is None
        assert [r.getMessage() for r in caplog.records] == [
            f"{path} is damaged; its engine is built again"
        ]
    path.write_bytes(whole.replace(b"sm89", b"sm86"))
    caplog.clear()
    assert read_engine(tmp_path, KEY) is None
    assert ["built of something else" in r.getMessage() for r in caplog.records] == [True]


def test_an_engine_that_cannot_be_written_whole_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_engine(tmp_path, KEY, b"plan")
    assert list(tmp_path.iterdir()) == []


def test_engines_are_kept_in_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engine_folder() == tmp_path / "portraittalk" / "engines"


# Building


def test_every_batch_size_has_a_profile_and_free_sizes_a_range() -> None:
    for rows in BATCHES:
        for _, least, usual, most in shapes(DENOISE, rows):
            assert least == usual == most
            assert least[0] == rows
    named = {name: sides for name, *sides in shapes(COMPOSITE, 2)}
    assert named["moved"] == [(2, 64, 64, 3), (2, 512, 512, 3), (2, 2160, 2160, 3)]


def test_a_gpu_that_is_not_built_for_is_refused_with_those_that_are() -> None:
    with pytest.raises(BackendUnavailable, match="not build for sm90; it does for sm75, sm80"):
        check_target("tensorrt-rtx", "sm90")
    check_target("tensorrt", "sm90")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--target", "sm90"], "TensorRT-RTX does not build for sm90"),
        (["--backend", "onnx"], "the ONNX files of tiny are in the package"),
        (["--profile", "sd15", "--backend", "onnx"], "name their folder with --out"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(given: list[str], said: str) -> None:
    with pytest.raises(AvatarError, match=said):
        CliRunner().invoke(app, ["export", *given], catch_exceptions=False)


@pytest.mark.slow
def test_tiny_is_exported_for_a_gpu_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'portraittalk[rtx]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("exports.engines.TINY", (DECODE, GUIDE))
    done = CliRunner().invoke(app, ["export", "--target", "sm89"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "engines for sm89" in done.output
    assert "2 graphs, engines of" in done.output
    how = Build(runtime="tensorrt-rtx", target="sm89", batches=(1,))
    digest = hashlib.sha256(graph(DECODE).read_bytes()).hexdigest()
    plan = read_engine(engine_folder(), how.key(DECODE, digest))
    assert plan is not None
    assert len(plan) > 100_000


@pytest.mark.parametrize(
    "spec",
    [pytest.param(s, marks=() if s in (COMPOSITE, GUIDE) else pytest.mark.slow) for s in TINY],
    ids=lambda spec: spec.name,
)
def test_each_graph_of_tiny_becomes_an_engine_without_a_gpu(spec: GraphSpec) -> None:
    """Bytes at the doors of detector, landmarks, lips and composite among them."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'portraittalk[rtx]'")
    steps: list[tuple[int, int]] = []
    how = Build(runtime="tensorrt-rtx", target="sm89", batches=(1,))
    plan = build_engine(spec, graph(spec), how, lambda done, total: steps.append((done, total)))
    assert plan.nbytes > 100_000
    assert steps[-1][0] == steps[-1][1] > 10
    assert all(done <= total for done, total in steps)


def test_what_is_no_graph_or_another_one_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'portraittalk[rtx]'")
    how = Build(runtime="tensorrt-rtx", target="sm89", batches=(1,))
    (tmp_path / "broken.onnx").write_bytes(b"\x08not a graph")
    with pytest.raises(WeightsError, match="does not parse"):
        build_engine(DECODE, tmp_path / "broken.onnx", how)
    with pytest.raises(WeightsError, match="lacks the tensors"):
        build_engine(DENOISE, graph(DECODE), how)


# Running


class HostMemory:
    """The host's memory, by address; recorded work is done when it is started again."""

    stream = 7

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.copies, self.records = 0, 0

    def take(self, size: int) -> int:
        buffer = ctypes.create_string_buffer(size)
        self.held[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def give(self, pointer: int) -> None:
        ctypes.memset(pointer, 255, len(self.held[pointer]))
        del self.held[pointer]

    def copy(self, to: int, source: int, size: int) -> None:
        self.copies += 1
        ctypes.memmove(to, source, size)

    def upload(self, to: int, array: np.ndarray) -> None:
        ctypes.memmove(to, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, source: int) -> None:
        ctypes.memmove(array.ctypes.data, source, array.nbytes)

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        self.records += 1
        Context.recording = []
        run()
        done, Context.recording = Context.recording, None
        return lambda: [work() for work in done][0]


class Context:
    """Runs a graph by addresses, as TensorRT's context does; a recording keeps those it was made with."""

    recording: list[Callable[[], None]] | None = None

    def __init__(self, spec: GraphSpec, rows: int) -> None:
        self.spec, self.rows = spec, rows
        self.graph = load_backend("onnxruntime", threads=1).load(spec, graph(spec))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.places: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return next(t for t in self.spec.outputs if t.name == name).sized(self.rows)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.places[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == HostMemory.stream
        places = dict(self.places)
        work = lambda: self._work(places)
        work() if Context.recording is None else Context.recording.append(work)
        return True

    def _work(self, places: dict[str, int]) -> None:
        feeds = {}
        for t in self.spec.inputs:
            feeds[t.name] = np.empty(t.sized(self.rows), t.dtype)
            ctypes.memmove(feeds[t.name].ctypes.data, places[t.name], feeds[t.name].nbytes)
        for name, array in self.graph(**feeds).items():
            ctypes.memmove(places[name], np.ascontiguousarray(array).ctypes.data, array.nbytes)


def running(spec: GraphSpec, rows: int = 4) -> tuple[TensorRtGraph, HostMemory]:
    memory = HostMemory()
    contexts = {n: Context(spec, n) for n in BATCHES if n <= rows}
    return TensorRtGraph(spec, contexts, Pool(memory)), memory


def feeds(spec: GraphSpec, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t.name: rng.standard_normal(t.sized(1)).astype(t.dtype) for t in spec.inputs}


@pytest.mark.parametrize("spec", [SPEECH, MOTION, GUIDE], ids=lambda spec: spec.name)
def test_streams_together_are_as_alone_wherever_their_rows_lie(spec: GraphSpec) -> None:
    """SPEECH has memories whose rows are not their first dimension."""
    made, _ = running(spec)
    plain = load_backend("onnxruntime", threads=1).load(spec, graph(spec))
    rows = [feeds(spec, seed) for seed in range(7)]
    for got, row in zip(made.each(rows), rows, strict=True):
        for name, wanted in plain(**row).items():
            np.testing.assert_allclose(np.asarray(got[name]), wanted, atol=2e-4)


def test_a_frame_cache_goes_from_step_to_step_by_address_and_what_was_made_stays() -> None:
    """Eight frames; memory that is free again is used again, and is recorded when it comes again."""
    made, memory = running(DENOISE)
    plain = load_backend("onnxruntime", threads=1).load(DENOISE, graph(DENOISE))
    pool = made._pool
    fixed = {n: put(pool, a) for n, a in feeds(DENOISE, 0).items() if "previous" not in n}
    kept = {n: np.asarray(a) for n, a in fixed.items()}
    caches = [{f"previous{i}": feeds(DENOISE, s)[f"previous{i}"] for i in range(3)} for s in (1, 2)]
    wanted, held = [dict(c) for c in caches], [dict(c) for c in caches]
    before = memory.copies
    for _ in range(8):
        outs = made.each([{**fixed, **cache} for cache in held])
        held = [{f"previous{i}": out[f"made{i}"] for i in range(3)} for out in outs]
        for stream, out in enumerate(outs):
            right = plain(**kept, **wanted[stream])
            wanted[stream] = {f"previous{i}": right[f"made{i}"] for i in range(3)}
            for name, array in right.items():
                np.testing.assert_allclose(np.asarray(out[name]), array, atol=1e-3)
        del outs, out
    caches_moved = 2 * 3  # of the first frame: each stream brought its own
    others = 2 * (len(DENOISE.inputs) - 3) * 8
    assert memory.copies - before == caches_moved + others
    assert memory.records == 2, "two pieces of memory by turns: what is read and what is written"


def put(pool: Pool, array: np.ndarray) -> DeviceArray:
    from engine.backends.device_arrays import on_device

    return on_device(pool, array)


def test_memory_and_recordings_do_not_grow_without_end() -> None:
    made, memory = running(DECODE, rows=1)
    row = {n: put(made._pool, a) for n, a in feeds(DECODE, 0).items()}
    outs = [made(**row)["patch"] for _ in range(RECORDED + 8)]  # held: each has memory of its own
    assert len(made._recordings) == RECORDED
    first = np.asarray(outs[0])
    assert all((np.asarray(out) == first).all() for out in outs)
    held = len(memory.held)
    outs.clear()
    assert len(memory.held) == held - (RECORDED + 8) + KEPT


def test_a_batch_without_a_profile_is_refused() -> None:
    made, _ = running(DECODE, rows=2)
    with pytest.raises(ValueError, match="takes \\(1, 2\\) rows, not 3"):
        made(**stack_rows(DECODE, [feeds(DECODE, i) for i in range(3)]))
    with pytest.raises(ValueError, match="opening: wants float32"):
        made(**{**feeds(DECODE, 0), "opening": np.zeros((1, 1, 3, 3), np.float32)})
