"""One CPU thread a graph, or two: what is measured decides."""

import logging

import pytest

from engine.avatar import AvatarEngine
from engine.backends.threads import Run, choose
from engine.config import EngineConfig


@pytest.mark.parametrize(
    ("one", "two", "threads"),
    [
        (Run(0.010, 0.010), Run(0.006, 0.011), 2),  # whole cores
        (Run(0.010, 0.010), Run(0.008, 0.016), 1),  # faster, and dearer
        (Run(0.020, 0.010), Run(0.010, 0.015), 1),  # others were in the way of one thread
        (Run(0.016, 0.016), Run(0.009, 0.023), 2),  # a painted frame would take 48 ms on one
        (Run(0.015, 0.015), Run(0.015, 0.030), 1),  # siblings of one core
        (Run(0.060, 0.060), Run(0.045, 0.090), 2),  # one alone does not keep up
        (Run(0.060, 0.060), Run(0.060, 0.120), 1),
    ],
)
def test_a_second_thread_has_to_be_worth_what_it_burns(one: Run, two: Run, threads: int) -> None:
    assert choose(one, two) == threads


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
