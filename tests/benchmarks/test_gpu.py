"""The benchmark of a GPU, tried on a CPU with small networks: the whole script, in both tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import SMALL  # noqa: E402
from benchmarks.sd15_systems import SYSTEMS  # noqa: E402
from engine.backends import BACKENDS  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_whole_script_runs_on_a_cpu_and_ends_with_one_line_of_json(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--small", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    result = json.loads(lines[-1])
    assert json.loads((tmp_path / "gpu.json").read_text()) == result
    assert {row["backend"] for row in result["tiny"]} == set(BACKENDS)
    ran = [row for row in result["tiny"] if "refused" not in row]
    assert {"openvino", "onnxruntime"} <= {row["backend"] for row in ran}
    for row in ran:
        assert 0 < row["frame_ms"]["p50"] <= row["frame_ms"]["p95"]
        assert row["frame_ms"]["p50"] < row["all_sessions_ms"]["p50"] or row["sessions"] == 1
        assert row["differs"] < 0.5, "every run time draws the same picture"
    wanted = [(n, 1) for n in SMALL.steps] + [(1, n) for n in SMALL.rows]
    for system in SYSTEMS:
        rows = [row for row in result["sd15"] if row["system"] == system]
        assert [(row["steps"], row["batch"]) for row in rows] == wanted
        assert all(row["frame_ms"]["p50"] > 0 for row in rows)
    table = "\n".join(lines[:-1])
    for word in (*BACKENDS, *SYSTEMS, "sessions", "peak GiB", result["commit"]):
        assert word in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU here")
def test_without_a_gpu_it_says_so_and_leaves_with_2() -> None:
    done = run()
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "sees no NVIDIA GPU; --device cpu" in done.stderr
