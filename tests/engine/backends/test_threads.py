"""One CPU thread a graph, or two: what is measured decides."""

import logging
import time

import numpy as np
import pytest

from engine.avatar import AvatarEngine
from engine.backends import load_backend
from engine.backends.threads import Run, choose
from engine.config import EngineConfig
from engine.render.specs import WARP


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


def test_a_small_graph_burns_no_second_thread() -> None:
    config = EngineConfig()
    graph = load_backend("openvino", threads=2).load(WARP, config.weights / "warp.onnx")
    feeds = {t.name: np.zeros(t.sized(1), t.dtype) for t in WARP.inputs}
    graph(**feeds)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(50):
        graph(**feeds)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert cpu <= 1.1 * wall  # a thread alone cannot take more
