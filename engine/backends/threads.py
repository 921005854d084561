"""How many CPU threads should one graph have? Measured once a process, before the engine loads.

On some machines two CPUs are siblings of one core: a second thread then gains nothing and burns half a CPU
waiting for the first. On whole cores it still takes a quarter to a third more processor time than it saves.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.backends import GraphSpec, load_backend
from engine.config import EngineConfig

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # the server says it at start
MEASURED_S = 0.4  # beside loading the graph twice
ROUNDS = 4  # at most, each of some runs on one thread and then on two
RUNS = 3
# Two threads are worth it where they are so many times as fast for so much more processor time,
WORTH, DEAR = 1.6, 1.25
# or where they help at all and one does not keep up: the graph is a third of a painted frame, which then
# takes longer than the 40 ms that it has.
SLOW_S, HELP = 0.013, 1.2


class Run(NamedTuple):
    """The best of some runs, in seconds."""

    wall: float = float("inf")
    cpu: float = float("inf")


def choose(one: Run, two: Run) -> int:
    """Threads of a graph, after its runs on one and on two."""
    gain = one.wall / two.wall
    worth = gain >= WORTH and two.cpu <= DEAR * one.cpu
    return 2 if worth or (one.cpu >= SLOW_S and gain >= HELP) else 1


def with_threads(config: EngineConfig, spec: GraphSpec) -> EngineConfig:
    """The settings with a number of threads; where they leave it open, as `spec`'s graph is measured.

    Raises:
        WeightsError: the graph's file is missing or damaged.
    """
    if config.threads:
        return config
    if config.backend not in ("openvino", "onnxruntime"):  # the CPU has little to do beside a GPU
        return replace(config, threads=2)
    path = config.weights / f"{spec.name}.onnx"
    return replace(config, threads=measured_threads(config.backend, spec, path))


@functools.cache
def measured_threads(backend: str, spec: GraphSpec, path: Path) -> int:
    """One or two threads, whichever serves the graph at `path` on this machine; it is logged.

    Args:
        spec: of a graph all of whose dimensions but the batch are fixed; the heaviest of a frame.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    if (len(affinity(0)) if affinity else os.cpu_count() or 1) < 2:
        return 1
    feeds = {t.name: np.zeros(t.sized(1), t.dtype) for t in spec.inputs}
    graphs = [load_backend(backend, threads=n).load(spec, path) for n in (1, 2)]
    best = [Run(), Run()]
    for graph in graphs:
        graph(**feeds)  # the first run is slower
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for i, graph in enumerate(graphs):
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(RUNS):
                graph(**feeds)
            taken = (time.perf_counter() - wall) / RUNS, (time.process_time() - cpu) / RUNS
            best[i] = Run(*map(min, best[i], taken))
        if time.perf_counter() - began > MEASURED_S:
            break
    threads = choose(*best)
    log.info(
        "%d CPU thread%s a graph: %s takes %.1f ms (%.1f of CPU) with one, %.1f (%.1f) with two",
        threads,
        "s" if threads > 1 else "",
        spec.name,
        *(1000 * seconds for run in best for seconds in run),
    )
    return threads
