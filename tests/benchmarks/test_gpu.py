"""The benchmark of a GPU, tried on a CPU with small networks: the whole script, in both tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from benchmarks import gpu  # noqa: E402
from benchmarks.environment import ROOT  # noqa: E402
from benchmarks.gpu import SMALL, Extent  # noqa: E402
from benchmarks.sd15_systems import SYSTEMS, Setup  # noqa: E402
from engine.backends import BACKENDS  # noqa: E402

pytestmark = pytest.mark.train
ONCE = Extent(sessions=(1,), steps=(1,), rows=(2,), warm_up=1, frames=2)


def test_a_frame_of_each_profile_is_timed_and_tabled(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = [row for name in ("openvino", "onnxruntime") for row in gpu.tiny(name, ONCE)]
    gpu.differences(tiny)
    for row in tiny:
        assert 0 < row["frame_ms"]["p50"] <= row["frame_ms"]["p95"]
        assert 0 < row["together_ms"]["p50"] <= row["together_ms"]["p95"]
        assert row["together_ratio_p50"] > 0
    assert 0 < tiny[1]["differs"] < 0.5, "every run time draws the same picture"
    sd15 = gpu.sd15("ours", Setup(small=True, precision="float32"), ONCE)
    assert [(row["steps"], row["batch"]) for row in sd15] == [(1, 1), (1, 2)]
    assert all(row["frame_ms"]["p50"] > 0 for row in sd15)
    gpu.print_tables({"tiny": tiny, "sd15": sd15, "precision": "float32"})
    table = capsys.readouterr().out
    for word in ("openvino", "onnxruntime", "ours", "sessions", "together", "peak GiB"):
        assert word in table


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_script_runs_on_a_cpu_and_ends_with_one_line_of_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small"]
    command += ["--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
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


def test_without_a_gpu_it_says_so_and_leaves_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit) as leaving:
        gpu.main()
    assert leaving.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "sees no NVIDIA GPU; --device cpu" in err
