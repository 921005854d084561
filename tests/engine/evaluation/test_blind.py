"""Votes of people read back against the key of their page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import DataError
from engine.evaluation.blind import read_votes


def files(tmp_path: Path, choices: dict[str, str]) -> tuple[Path, Path]:
    """A key in which every second pair has the first system on the left, and votes."""
    pairs = {f"p{i}": {"clip": "x", "left": "live" if i % 2 == 0 else "full"} for i in range(40)}
    key, votes = tmp_path / "key.json", tmp_path / "votes.json"
    key.write_text(json.dumps({"first": "live", "second": "full", "pairs": pairs}))
    votes.write_text(json.dumps({"votes": choices}))
    return key, votes


def test_a_preference_is_found_on_whichever_side_it_stood(tmp_path: Path) -> None:
    key, votes = files(tmp_path, {f"p{i}": ("left", "right")[i % 2] for i in range(40)})
    tally = read_votes([votes, votes], key)
    assert (tally.votes, tally.share, tally.low) == (80, 1.0, 1.0)
    assert "a preference" in str(tally)


def test_one_side_always_is_no_preference(tmp_path: Path) -> None:
    key, votes = files(tmp_path, {f"p{i}": "left" for i in range(40)})
    tally = read_votes([votes], key)
    assert tally.share == 0.5
    assert tally.low < 0.4
    assert tally.high > 0.6
    assert "no preference shown" in str(tally)


def test_ties_count_half(tmp_path: Path) -> None:
    key, votes = files(tmp_path, {"p0": "same", "p2": "left"})
    assert read_votes([votes], key).share == 0.75


@pytest.mark.parametrize("choices", [{"other": "left"}, {"p0": "up"}, {}])
def test_votes_that_mean_nothing_are_refused(tmp_path: Path, choices: dict[str, str]) -> None:
    key, votes = files(tmp_path, choices)
    with pytest.raises(DataError):
        read_votes([votes], key)
