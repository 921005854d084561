"""Run times of an NVIDIA GPU, as far as a machine without one can tell.

That a session is asked for the right providers, and that none silently takes another's place.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.audio.speech_encoder import SPEECH
from engine.avatar import AvatarEngine
from engine.backends import BACKENDS, GraphSpec, load_backend
from engine.config import EngineConfig
from engine.errors import BackendUnavailable
from engine.face.detector import DETECTOR, LANDMARKS
from engine.motion.decoder import MOTION
from engine.render.specs import COMPOSITE, DECODE, DENOISE, ENROLL, GUIDE, MOVE, SPECS, WARP
from server.cli import app

ROOT = Path(__file__).parents[3]

onnxruntime = pytest.importorskip("onnxruntime")
ort = pytest.importorskip("engine.backends.onnxruntime")
WEIGHTS = EngineConfig().weights
ALL = (*SPECS, DETECTOR, LANDMARKS, SPEECH, MOTION)
FP16 = {ENROLL.name, GUIDE.name, DENOISE.name, DECODE.name, DETECTOR.name}
AVAILABLE = onnxruntime.get_available_providers()


def graph(spec: GraphSpec) -> Path:
    return WEIGHTS / f"{spec.name}.onnx"


@pytest.mark.parametrize("command", ["serve", "generate"])
def test_the_command_line_names_every_run_time(command: str) -> None:
    given = [command, "--backend", "abacus"]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, given)
    assert done.exit_code == 2
    for name in BACKENDS:
        assert f"'{name}'" in done.output


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_geometry_and_speech_keep_full_precision_on_a_gpu(spec: GraphSpec, tmp_path: Path) -> None:
    cuda = ort.on_cuda(spec, graph(spec))
    assert [name for name, _ in cuda] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert cuda[0][1]["use_tf32"] == ("1" if spec.precision == "any" else "0")
    tensorrt = ort.on_tensorrt(tmp_path)(spec, graph(spec))
    if spec.name not in FP16:
        assert tensorrt == cuda
        assert not list(tmp_path.iterdir())
        return
    assert spec.precision == "any"
    assert [name for name, _ in tensorrt] == ["TensorrtExecutionProvider", *(n for n, _ in cuda)]
    assert tensorrt[1:] == cuda
    assert tensorrt[0][1]["trt_fp16_enable"] == "True"


def test_a_graph_of_free_size_is_no_tensorrt_engine(tmp_path: Path) -> None:
    free = GraphSpec("free", MOVE.inputs, MOVE.outputs)
    assert free.precision == "any"
    providers = ort.on_tensorrt(tmp_path)(free, graph(MOVE))
    assert [name for name, _ in providers][0] == "CUDAExecutionProvider"
    assert not COMPOSITE.precision == "any"


def test_an_engine_is_kept_for_one_file_and_no_other(tmp_path: Path) -> None:
    """TensorRT's provider names engines by the graph's structure: new weights would get the old."""
    one, other = (tmp_path / name / "decode.onnx" for name in ("one", "other"))
    for path, content in ((one, b"weights"), (other, b"weights, trained further")):
        path.parent.mkdir()
        path.write_bytes(content)
    ask = lambda path: ort.on_tensorrt(tmp_path / "kept")(DECODE, path)[0][1]
    first, again, second = ask(one), ask(one), ask(other)
    assert first == again
    assert first["trt_engine_cache_path"] != second["trt_engine_cache_path"]
    assert first["trt_timing_cache_path"] == second["trt_timing_cache_path"]
    assert Path(first["trt_engine_cache_path"]).is_dir()


def test_engines_are_kept_in_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ort.engine_folder() == tmp_path / "portraittalk" / "tensorrt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ort.engine_folder() == tmp_path / ".cache" / "portraittalk" / "tensorrt"


@pytest.mark.parametrize(("name", "provider"), [("cuda", ort.CUDA), ("ort-tensorrt", ort.TENSORRT)])
def test_a_run_time_that_is_not_installed_is_refused_in_one_sentence(
    name: str, provider: str
) -> None:
    if provider in AVAILABLE:
        pytest.skip("this onnxruntime has it")
    with pytest.raises(BackendUnavailable) as refusal:
        load_backend(name, threads=1)
    said = str(refusal.value)
    assert f"has no {provider}" in said
    assert "pip install 'portraittalk[gpu]'" in said
    assert "\n" not in said


def test_a_session_that_fell_back_to_the_cpu_is_refused(recwarn: pytest.WarningsRecorder) -> None:
    """ONNX Runtime goes on without a provider it cannot have, and only warns."""
    if ort.CUDA in AVAILABLE:
        pytest.skip("this onnxruntime may have it")
    with pytest.raises(BackendUnavailable, match="CUDAExecutionProvider cannot run the graph warp"):
        ort.OnnxRuntimeBackend(1, ort.on_cuda).load(WARP, graph(WARP))
    assert [str(w.message) for w in recwarn if "CUDAExecutionProvider" in str(w.message)]


def test_a_session_of_a_list_with_options_computes_the_same() -> None:
    """The providers' list as a GPU has it, with the one provider that is here."""

    def tuned(spec: GraphSpec, path: Path) -> list[tuple[str, dict[str, str]]]:
        return [("CPUExecutionProvider", {"use_arena": "0"})]

    plain, other = load_backend("onnxruntime", threads=1), ort.OnnxRuntimeBackend(1, tuned)
    rng = np.random.default_rng(0)
    for spec in (GUIDE, DENOISE, DECODE):
        feeds = {t.name: rng.standard_normal(t.sized(1)).astype(t.dtype) for t in spec.inputs}
        a, b = (runtime.load(spec, graph(spec))(**feeds) for runtime in (plain, other))
        for tensor in spec.outputs:
            np.testing.assert_array_equal(a[tensor.name], b[tensor.name])
            assert a[tensor.name].std() > 0


def test_a_fast_run_time_paints_every_frame() -> None:
    runtime = ort.OnnxRuntimeBackend(1, ort.on_cpu, fast=True)
    assert AvatarEngine.load(EngineConfig(threads=1), runtime).config.paint_every == 1
    assert not load_backend("onnxruntime", threads=1).fast


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"])
def test_a_gpu_computes_what_the_cpu_does(name: str) -> None:
    rng = np.random.default_rng(0)
    feeds = {t.name: rng.standard_normal(t.sized(1)).astype(t.dtype) for t in DECODE.inputs}
    if name.endswith("tensorrt"):
        pytest.importorskip("tensorrt", reason="NVIDIA gives it out itself")
    gpu = load_backend(name, threads=1).load(DECODE, graph(DECODE))
    cpu = load_backend("onnxruntime", threads=1).load(DECODE, graph(DECODE))
    np.testing.assert_allclose(gpu(**feeds)["patch"], cpu(**feeds)["patch"], atol=0.05)


def test_a_cpu_held_to_fewer_instructions_still_draws() -> None:
    """In a process of its own: oneDNN reads the variable once."""
    script = (
        "import numpy as np\n"
        "from engine.avatar import AvatarEngine\n"
        "from engine.config import EngineConfig\n"
        "from engine.face.image_file import decode_image\n"
        "from server.settings import BUNDLED_PORTRAIT\n"
        "engine = AvatarEngine.load(EngineConfig(threads=1))\n"
        "identity = engine.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes()))\n"
        "made = engine.step(engine.start(identity), np.zeros(640 * 4, np.float32))\n"
        "print(len(made), engine.config.paint_every)\n"
    )
    held = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=held, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    frames, every = done.stdout.split()
    assert int(frames) > 0
    assert every == "3", "every third mouth where bf16 is missing"
