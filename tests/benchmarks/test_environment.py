from __future__ import annotations

import json
import platform

import pytest

from benchmarks.environment import describe, idle_clock, print_header


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
