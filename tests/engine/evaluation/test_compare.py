"""Paired differences and their intervals; where a still picture or the wrong sound wins."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DataError
from engine.evaluation.compare import differences, interval, read_report
from engine.evaluation.compare_page import compare_page
from engine.evaluation.plots import ticks
from engine.evaluation.table import Report, fooled, out_of_step


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
    rounding = report(offline={"psnr": list(clips * (1 + 1e-6))})
    [row] = differences(report(offline={"psnr": list(clips)}), rounding)
    assert row.verdict == "the same"


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
    both = {"offline": {"psnr": [1.0]}, "still": {"psnr": [2.0]}}
    other = {"full": {"psnr": [1.0]}, "warp": {"psnr": [1.0]}, "still": {"psnr": [2.0]}}
    with pytest.raises(DataError, match=r"in common: A has offline, B has full, warp"):
        differences(report(**both), report(**other))
    (tmp_path / "report.json").write_text(json.dumps({"rows": "none"}))
    with pytest.raises(DataError, match="no report"):
        read_report(tmp_path)


def test_two_systems_alone_are_a_pair_and_references_are_checked() -> None:
    a = report(offline={"psnr": [20.0, 21.0, 22.0]}, still={"psnr": [9.0, 9.0, 9.0]})
    b = report(full={"psnr": [22.0, 23.1, 24.0]}, still={"psnr": [9.0, 9.0, 9.0]})
    rows = differences(a, b)
    told = [(row.whose, row.verdict) for row in rows]
    assert told == [
        ("offline, 1 step against offline, 25 steps", "B is better"),
        ("still portrait", "the same"),
    ]
    page = compare_page((Path("x"), a), (Path("<y>"), b), rows)
    assert "1 difference shown, of 1 looked at" in page
    assert "The same in both" in page
    assert "&lt;y&gt;" in page
    b = report(full={"psnr": [22.0, 23.1, 24.0]}, still={"psnr": [8.0, 9.0, 9.0]})
    assert "References that differ" in compare_page(
        (Path("x"), a), (Path("y"), b), differences(a, b)
    )


def test_measures_of_a_whole_set_are_told_without_an_interval() -> None:
    made = [report(offline={"psnr": [20.0, 21.0]}) for _ in range(2)]
    for one, value in zip(made, (30.0, 25.0), strict=True):
        one.data["sets"]["offline|pose-given"] = {"fid": value}
    fid = differences(*made)[-1]
    assert (fid.name, fid.mean, fid.verdict) == ("fid", -5.0, "of the whole set: no interval")


@pytest.mark.parametrize(
    ("offset", "sure", "said"), [(-6.0, 0.2, True), (-6.0, 0.05, False), (1.0, 0.2, False)]
)
def test_a_film_out_of_step_with_its_sound_is_called_out(
    offset: float, sure: float, said: bool
) -> None:
    made = report(re_encode={"own_sync_offset": [offset], "own_sync_c": [sure]})
    made.data["rows"][0]["protocol"] = "free"
    lines = out_of_step(made)
    assert bool(lines) is said
    assert all("6 frames before its sound" in line for line in lines)
    assert all("`sound_late_s = 0.24`" in line for line in lines)


@pytest.mark.parametrize(("low", "high"), [(20.3, 41.4), (-0.04, 1.43), (3e-4, 0.17), (0, 3.96)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 7
    assert low <= found[0] + 1e-9
    assert found[-1] <= high + 1e-9
    assert all(len(f"{v:.10g}".lstrip("-0.").replace(".", "").rstrip("0")) <= 2 for v in found)


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
