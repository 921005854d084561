"""The command line: quick help that teaches, one address, errors of one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.server.pictures import DAMAGED_EXIF

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(60)


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", *args]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", **environ},
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_help_teaches_and_loads_nothing_heavy() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    for word in (
        "--port",
        "--max-sessions",
        "--allow-origin",
        "PORTRAITTALK__PORT",
        "--frame-code",
        "--auth-secret",
        "--insecure",
        "--disclosure",
        "--audit-log",
    ):
        assert word in done.stdout
    program = (
        "import sys\nfrom server.cli import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['serve', '--help']).exit_code == 0\n"
        "print([m for m in ('openvino', 'aiortc', 'av', 'uvicorn', 'PIL') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert loaded.stdout.strip() == "[]", loaded.stderr


def test_help_of_generate_teaches_the_ways_to_a_long_video() -> None:
    shown = run("generate", "--help").stdout
    for word in ("--long-video", "cache|fusion|neither", "--window", "--overlap", "latent fusion"):
        assert word in shown


@pytest.mark.parametrize(
    ("args", "environ", "said"),
    [
        (("--port", "99999"), {}, "port=99999"),
        ((), {"PORTRAITTALK__PROT": "1"}, "did you mean 'port'"),
        (("--max-sessions", "0"), {}, "max_sessions=0"),
        (("--allow-origin", "a.example"), {}, "allow_origin: 'a.example'"),
        (("--allow-host", "a.example:80"), {}, "allow_host: 'a.example:80'"),
    ],
)
def test_a_wrong_setting_is_one_line(
    args: tuple[str, ...], environ: dict[str, str], said: str
) -> None:
    done = run("serve", *args, **environ)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--size", "-3", "size=-3: wanted a multiple of 8 from 32 to 2048"),
        ("--size", "65", "size=65: wanted a multiple of 8 from 32 to 2048"),
        ("--size", "99999", "size=99999: wanted a multiple of 8 from 32 to 2048"),
        ("--layout", "x", "layout 'x': wanted one of auto, plain, hdtf, mead"),
        ("--models-dir", "none", "models_dir='none' does not exist"),
    ],
)
def test_what_cannot_be_prepared_is_one_sentence(
    option: str, value: str, said: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    done = run("prepare", str(tmp_path), "--out", str(tmp_path / "out"), option, value)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--sampler", "dopri5"), ("--face-encoder", "x"), ("--sampler", "flow")]
)
def test_an_unknown_name_is_refused_by_the_option(option: str, value: str) -> None:
    done = run("serve", "--profile", "sd15", "--random-weights", "small", option, value)
    assert done.returncode == 2
    assert f"'{option}'" in done.stderr
    assert f"'{value}'" in done.stderr


@pytest.mark.parametrize("name", ["cuda", "ort-tensorrt"])
def test_a_run_time_that_is_not_here_is_one_line_that_says_what_to_install(name: str) -> None:
    if "CUDAExecutionProvider" in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("this onnxruntime has it")
    done = run("serve", "--backend", name)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "pip install 'portraittalk[gpu]'" in done.stderr


def test_a_gpu_option_of_the_full_size_profile_is_refused_without_it_and_without_a_gpu() -> None:
    done = run("serve", "--compile", "cudagraphs")
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "portraittalk: compile: only --profile sd15 has a use for that",
    )


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("--steps", "num_inference_steps"),
        ("--num-inference-steps", "num_inference_steps"),
        ("--guidance", "guidance_scale"),
        ("--guidance-scale", "guidance_scale"),
    ],
)
def test_sampling_options_go_by_their_short_and_their_full_name(option: str, field: str) -> None:
    done = run("serve", option, "4")
    assert done.returncode == 1
    assert f"{field}: only --profile sd15" in done.stderr


def test_serving_prints_one_address_and_stops_when_told() -> None:
    command = [sys.executable, "-m", "tests.server.fake_server", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline().strip()
            assert re.fullmatch(r"http://localhost:\d+/", line), line
            with urllib.request.urlopen(f"{line}healthz", timeout=10) as response:
                assert response.status == 200
            headers = {"Content-Type": "image/jpeg"}
            upload = urllib.request.Request(f"{line}api/portraits", DAMAGED_EXIF, headers)
            with urllib.request.urlopen(upload, timeout=10) as response:
                assert response.status == 201
        finally:
            server.send_signal(signal.SIGINT)
            began = time.monotonic()
            out, err = server.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert out == ""
    assert "Traceback" not in err
    assert "Warning" not in err  # what is wrong with strangers' pictures is no news
