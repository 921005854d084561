"""One CPU thread a graph, or two: what is measured decides."""

import logging
import os
import time

import numpy as np
import pytest

from engine.avatar import AvatarEngine
from engine.backends import load_backend
from engine.backends.threads import Run, choose, choose_side, load_runtime
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.render.specs import DENOISE, WARP


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


@pytest.mark.parametrize(
    ("alone_s", "beside_s", "most", "threads"),
    [
        (0.013, 0.014, 2, 2),  # whole cores
        (0.032, 0.032, 2, 1),  # one alone does not keep up
        (0.016, 0.032, 2, 1),  # siblings of one core
        (0.013, 0.018, 2, 2),  # they gain .44 of a core
        (0.013, 0.020, 2, 1),  # and .3
        (0.006, 0.006, 4, 4),
        (0.006, 0.011, 4, 2),  # two cores, two siblings each
        (0.006, 0.005, 4, 4),  # never more than were tried
    ],
)
def test_one_more_engine_thread_has_to_gain_enough(
    alone_s: float, beside_s: float, most: int, threads: int
) -> None:
    assert choose_side(alone_s, beside_s, most) == threads


def test_streams_are_shared_among_engine_threads_where_several_may_step_them() -> None:
    several = EngineConfig(threads=1, engine_threads=2, batch=5, backend="onnxruntime")
    config, _ = load_runtime(several, DENOISE)
    assert (config.threads, config.engine_threads, config.batch) == (1, 2, 3)
    for alone in ({"batch": 1}, {"batch": 8, "profile": "sd15"}):  # nobody to draw beside; torch
        config, _ = load_runtime(EngineConfig(threads=1, engine_threads=0, **alone), DENOISE)
        assert (config.threads, config.engine_threads) == (1, 1)
    for other in ({"profile": "sd15"}, {"backend": "cuda"}):
        with pytest.raises(ConfigError, match="engine_threads=2: only the tiny profile"):
            EngineConfig(engine_threads=2, **other)
    with pytest.raises(ConfigError, match="engine_threads=65 is out of range"):
        EngineConfig(engine_threads=65)


def test_engine_threads_are_measured_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine")
    config, _ = load_runtime(EngineConfig(engine_threads=0, batch=2), DENOISE)
    assert config.engine_threads in (1, 2)
    if config.engine_threads == 2:
        assert config.threads == 1
    if (os.cpu_count() or 1) > 1:
        said = [r.message for r in caplog.records if "side by side" in r.message]
        assert said[0].startswith(f"{config.engine_threads} engine thread")


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
