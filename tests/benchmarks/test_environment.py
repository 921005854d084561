from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.environment import cpu_clock, describe, gpus, print_header, process_cpu_s


def test_the_description_names_machine_versions_and_commit() -> None:
    about = json.loads(json.dumps(describe()))
    assert about["hardware"]["cpu"]
    assert about["hardware"]["cores"] >= 1
    assert about["versions"]["python"] == platform.python_version()
    assert about["versions"]["numpy"]
    assert about["commit"]
    assert 0.5 < about["hardware"]["two_against_one"] < 4  # 1 to 2, and what a busy machine adds


def test_the_header_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    about = describe()
    print_header("a title", about)
    text = capsys.readouterr().out
    assert text.startswith("a title\n")
    assert about["commit"] in text
    assert about["hardware"]["cpu"] in text
    assert f"two at once do {about['hardware']['two_against_one']} times" in text


def test_gpus_are_what_their_own_tool_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.65.06, 143771 MiB'\n")
    tool.chmod(0o755)
    assert gpus() == [{"name": "NVIDIA H200", "driver": "580.65.06", "memory": "143771 MiB"}]
    tool.write_text("#!/bin/sh\necho 'could not talk to the driver'\nexit 9\n")
    assert gpus() == []


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_cpu_time_of_a_process_grows_with_its_work() -> None:
    before = process_cpu_s(os.getpid())
    busy(0.1)
    assert process_cpu_s(os.getpid()) - before >= 0.08
    assert process_cpu_s(2**22 + 1) == 0


def test_work_of_this_process_and_its_children_is_ours() -> None:
    before = cpu_clock()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        busy(0.3)
        time.sleep(0.5)
        shares = cpu_clock().since(before)
    finally:
        child.kill()
        child.wait()
    assert shares.ours_cores > 0.2
    assert min(shares.idle_cores, shares.others_cores) >= 0
    total = shares.ours_cores + shares.others_cores + shares.idle_cores
    assert total == pytest.approx(os.cpu_count(), rel=0.1)


def test_work_of_other_processes_is_not_ours() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        before = cpu_clock(root=stranger.pid)
        busy(0.5)
        shares = cpu_clock(root=stranger.pid).since(before)
    finally:
        stranger.kill()
        stranger.wait()
    assert shares.others_cores > 0.1
