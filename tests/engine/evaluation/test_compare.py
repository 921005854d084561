"""Paired differences and their intervals; where a still picture or the wrong sound wins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DataError
from engine.evaluation.compare import differences, interval, read_report
from engine.evaluation.table import Report, fooled


def report(**systems: dict[str, list[float]]) -> Report:
    rows = [
        {
            "system": system.replace("_", "-"),
            "protocol": "pose-given",
            "clip": f"c{i}",
            "values": {name: column[i] for name, column in values.items()},
        }
        for system, values in systems.items()
        for i in range(len(next(iter(values.values()))))
    ]
    return Report({"rows": rows, "sets": {}})


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    given = np.random.default_rng(3).normal(2.0, 1.0, 400)
    low, high = interval(given.tolist())
    standard = 1.96 * given.std() / np.sqrt(400)
    assert low == pytest.approx(given.mean() - standard, abs=0.01)
    assert high == pytest.approx(given.mean() + standard, abs=0.01)


def test_pairs_show_what_means_hide() -> None:
    clips = np.linspace(15, 35, 12)  # far apart from each other
    rows = differences(
        report(offline={"psnr": list(clips), "m_lmd": list(clips)}),
        report(offline={"psnr": list(clips + 0.5), "m_lmd": list(clips + 0.5)}),
    )
    told = {row.name: row.verdict for row in rows}
    assert told == {"psnr": "B is better", "m_lmd": "A is better"}
    assert all(row.mean == pytest.approx(0.5) and row.pairs == 12 for row in rows)


def test_noise_is_no_difference_and_one_pair_has_no_interval() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 20)
    noise -= noise.mean()
    [row] = differences(
        report(offline={"psnr": [20.0] * 20}), report(offline={"psnr": list(20 + noise)})
    )
    assert row.verdict == "no difference shown"
    [row] = differences(report(offline={"psnr": [20.0]}), report(offline={"psnr": [25.0]}))
    assert "one pair" in row.verdict


def test_reports_without_a_common_clip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in common"):
        differences(report(offline={"psnr": [1.0]}), report(full={"psnr": [1.0]}))
    (tmp_path / "report.json").write_text(json.dumps({"rows": "none"}))
    with pytest.raises(DataError, match="no report"):
        read_report(tmp_path)


def test_a_still_picture_that_wins_is_called_out() -> None:
    made = report(
        re_encode={"psnr": [40.0], "f_lmd": [0.1], "adfd": [0.9]},
        still={"psnr": [26.0], "f_lmd": [3.0], "adfd": [0.95]},
        wrong_sound={"psnr": [float("inf")], "f_lmd": [0.1], "adfd": [0.9]},
        offline={"psnr": [23.0], "f_lmd": [1.0], "adfd": [0.97]},
    )
    words = fooled(made, "pose-given")
    assert "PSNR (pose-given): the still portrait beats offline, 1 step." in words
    assert "ADFD (pose-given): the still portrait beats the real clip." in words
    assert "PSNR (pose-given): the wrong sound beats the right one." in words
    assert not any(word.startswith("F-LMD") for word in words)
