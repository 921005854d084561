"""One CPU thread a graph, or two: what is measured decides."""

import logging

import pytest

from engine.avatar import AvatarEngine
from engine.backends.threads import SLOW_S, choose
from engine.config import EngineConfig


@pytest.mark.parametrize(
    ("one_s", "two_s", "threads"),
    [
        (0.015, 0.008, 2),  # whole cores
        (0.015, 0.011, 1),  # faster, and dearer
        (0.015, 0.015, 1),  # siblings of one core
        (2 * SLOW_S, 1.5 * SLOW_S, 2),  # one alone does not keep up
        (2 * SLOW_S, 2 * SLOW_S, 1),
    ],
)
def test_a_second_thread_has_to_be_worth_what_it_burns(
    one_s: float, two_s: float, threads: int
) -> None:
    assert choose(one_s, two_s) == threads


def test_an_engine_says_how_many_threads_it_took_and_measures_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "engine")
    first = AvatarEngine.load(EngineConfig()).config.threads
    assert first in (1, 2)
    said = [r.message for r in caplog.records if "a graph" in r.message]
    assert AvatarEngine.load(EngineConfig()).config.threads == first
    assert [r.message for r in caplog.records if "a graph" in r.message] == said
    assert AvatarEngine.load(EngineConfig(threads=2)).config.threads == 2
