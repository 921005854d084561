"""The benchmark itself, short and against the fake engine: the figures are there and plausible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.end_to_end import TOO_BUSY
from benchmarks.environment import ROOT
from server.evaluation.chromium import ChromiumMissing, find_chromium

KEYS = {
    "fps_shown",
    "longest_freeze_s",
    "glass_to_glass_ms_p50",
    "glass_to_glass_ms_p95",
    "av_skew_ms_p50",
    "av_skew_ms_p95",
    "clocks",
    "legs_ms",
    "hardware",
    "versions",
    "commit",
    "valid",
}


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.end_to_end", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)


def test_the_help_teaches_how_to_read_the_figures() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("glass-to-glass", "clocks", "machine too busy", "--server-command", "Examples"):
        assert word in done.stdout


@pytest.mark.e2e
@pytest.mark.timing
def test_a_short_run_ends_in_one_line_with_every_figure(tmp_path: Path) -> None:
    try:
        find_chromium()
    except ChromiumMissing as missing:
        pytest.skip(str(missing))
    fake = f"{sys.executable} -m tests.server.fake_server"
    out = tmp_path / "deep" / "result.json"
    short = ["--seconds", "6", "--warm-up", "1", "--attempts", "1"]
    done = run(*short, "--server-command", fake, "--out", str(out))
    assert done.returncode in (0, TOO_BUSY), done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) >= KEYS
    assert result == json.loads(out.read_text())
    assert result["valid"] == (done.returncode == 0) == (not result["objections"])
    assert ("machine too busy" in done.stdout) != result["valid"]
    assert result["beeps"] >= 3
    assert result["fps_shown"] > 5
    assert result["glass_to_glass_ms_p50"] > 120, "less than the look-ahead and a frame: impossible"
    assert result["browser"]["code_read_share"] > 0.9
    legs = result["legs_ms"]
    assert legs["sound_to_frame"]["p50"] > 80
    assert len(legs) == 6
