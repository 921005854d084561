from __future__ import annotations

import json
import os
import platform
import time

import pytest

from benchmarks.environment import describe, idle_clock, print_header, process_cpu_s


def test_the_description_names_machine_versions_and_commit() -> None:
    about = json.loads(json.dumps(describe()))
    assert about["hardware"]["cpu"]
    assert about["hardware"]["cores"] >= 1
    assert about["versions"]["python"] == platform.python_version()
    assert about["versions"]["numpy"]
    assert about["commit"]


def test_the_header_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    about = describe()
    print_header("a title", about)
    text = capsys.readouterr().out
    assert text.startswith("a title\n")
    assert about["commit"] in text
    assert about["hardware"]["cpu"] in text


def test_idle_time_is_a_part_of_all_time() -> None:
    idle, total = idle_clock()
    assert 0 < idle < total


def test_the_cpu_time_of_a_process_grows_with_its_work() -> None:
    before = process_cpu_s(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert process_cpu_s(os.getpid()) - before >= 0.08
