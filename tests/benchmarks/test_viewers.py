"""The benchmark of several viewers: what it counts, and itself against the fake engine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.environment import ROOT
from benchmarks.viewers import mean_step


def test_the_step_is_the_mean_over_the_frames_between_two_looks() -> None:
    assert mean_step({0: 100, 1: 10}, {0: 130, 1: 10, 3: 10}) == 0.75
    assert mean_step({0: 100}, {0: 100}) is None


@pytest.mark.timing
def test_two_viewers_see_pictures_and_hear_all() -> None:
    server = f"{sys.executable} -m tests.server.fake_server --step-ms 5"
    wanted = ("--viewers", "2", "--seconds", "2", "--settling", "2", "--server-command", server)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.viewers", *wanted],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    [row] = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert row["viewers"] == 2
    assert 5 < row["fps_slowest"] <= row["fps_fastest"] < 30
    assert 0.8 < row["sound"] <= 1.05
    assert row["cpu"] > 0
