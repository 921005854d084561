"""How many CPU threads should one graph have, and how many threads should step streams side by side?

Measured once a process, before the engine loads. On some machines two CPUs are siblings of one core: a second
thread then gains nothing and burns half a CPU waiting for the first. On whole cores two threads for one graph still
take a quarter to a third more processor time than they save; two that each run a graph of their own save all of it.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.backends import Backend, Graph, GraphSpec, load_backend
from engine.config import CPU_BACKENDS, EngineConfig

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # the server says it at start
MEASURED_S = 0.4  # beside loading the graphs
ROUNDS = 4  # at most, each of some runs in every way
RUNS = 3
# Two threads are worth it where they are so many times as fast for so much more processor time,
WORTH, DEAR = 1.6, 1.25
# or where they help at all and one does not keep up: the graph is a third of a painted frame, which then
# takes longer than the 40 ms that it has.
SLOW_S, HELP = 0.013, 1.2
MOST = 4  # engine threads that are tried: beyond, they would mostly wait for Python's one lock
SIDE = 0.4  # of a processor: what one more engine thread must gain
# Every third frame is painted; where the graph takes so long, one thread does not keep up with one stream,
# and a second stream is out of the question.
TOO_SLOW_S = 0.025


class Run(NamedTuple):
    """The best of some runs, in seconds for each."""

    wall: float = float("inf")
    cpu: float = float("inf")


def choose(one: Run, two: Run) -> int:
    """Threads of a graph, after its runs on one and on two."""
    gain = one.wall / two.wall
    worth = gain >= WORTH and two.cpu <= DEAR * one.cpu
    return 2 if worth or (one.cpu >= SLOW_S and gain >= HELP) else 1


def choose_side(alone_s: float, beside_s: float, most: int) -> int:
    """Engine threads, after the processor time of a graph's run alone and of one beside others, `most` at once.

    Not the clock decides: somebody else may be using the machine just now. A run on half a core takes twice the
    processor time too.
    """
    gain = most * min(1.0, alone_s / beside_s)
    return 1 if alone_s >= TOO_SLOW_S else max(1, min(most, int(gain + 1 - SIDE)))


def load_runtime(config: EngineConfig, spec: GraphSpec) -> tuple[EngineConfig, Backend]:
    """The run time of the settings, and these with numbers of threads.

    Where they leave them open, `spec`'s graph is measured on a CPU: the heaviest of a frame, all of whose
    dimensions but the batch are fixed.

    Raises:
        BackendUnavailable: the run time is not installed.
        WeightsError: the graph's file is missing or damaged.
    """
    threads, side = config.threads, config.engine_threads
    if config.backend not in CPU_BACKENDS:  # the CPU has little to do beside a GPU
        threads = threads or 2
    if not config.steps_side_by_side:
        side = 1
    graph = (config.backend, spec, config.weights / f"{spec.name}.onnx")
    if not side:
        most = min(MOST, config.batch, _cpus() // (threads or 1))
        side = measured_side(*graph, threads or 1, most) if most > 1 else 1
    if not threads:
        threads = 1 if side > 1 else measured_threads(*graph)
    share = -(-config.batch // side)  # the other threads step the other streams
    config = replace(config, threads=threads, engine_threads=side, batch=share)
    runtime = load_backend(config.backend, threads=threads, rows=share, callers=side)
    return config, runtime


@functools.cache
def measured_threads(backend: str, spec: GraphSpec, path: Path) -> int:
    """One or two threads, whichever serves the graph at `path` on this machine; it is logged."""
    if _cpus() < 2:
        return 1
    feeds = _feeds(spec)
    one, two = (load_backend(backend, threads=n).load(spec, path) for n in (1, 2))
    runs = _best([lambda: one(**feeds), lambda: two(**feeds)])
    threads = choose(*runs)
    log.info(
        "%d CPU thread%s a graph: %s takes %.1f ms (%.1f of CPU) with one, %.1f (%.1f) with two",
        threads,
        "s" if threads > 1 else "",
        spec.name,
        *(1000 * seconds for run in runs for seconds in run),
    )
    return threads


@functools.cache
def measured_side(backend: str, spec: GraphSpec, path: Path, threads: int, most: int) -> int:
    """Engine threads, up to `most`, that gain by running side by side here; it is logged.

    Args:
        threads: of each graph.
    """
    feeds = _feeds(spec)
    graph = load_backend(backend, threads=threads, callers=most).load(spec, path)
    with ThreadPoolExecutor(most) as pool:
        alone, together = _best(
            [lambda: graph(**feeds), lambda: _at_once(pool, graph, feeds, most)]
        )
    side = choose_side(alone.cpu, together.cpu / most, most)
    log.info(
        "%d engine thread%s: %s takes %.1f ms of CPU alone, %.1f each of %d side by side",
        side,
        "s" if side > 1 else "",
        spec.name,
        1000 * alone.cpu,
        1000 * together.cpu / most,
        most,
    )
    return side


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _feeds(spec: GraphSpec) -> dict[str, np.ndarray]:
    return {t.name: np.zeros(t.sized(1), t.dtype) for t in spec.inputs}


def _at_once(
    pool: ThreadPoolExecutor, graph: Graph, feeds: Mapping[str, object], most: int
) -> None:
    for run in [pool.submit(lambda: graph(**feeds)) for _ in range(most)]:
        run.result()


def _best(ways: Sequence[Callable[[], object]]) -> list[Run]:
    """The best of some runs in each of several ways, which take turns."""
    best = [Run() for _ in ways]
    for run in ways:
        run()  # the first one is slower
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for i, run in enumerate(ways):
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(RUNS):
                run()
            taken = (time.perf_counter() - wall) / RUNS, (time.process_time() - cpu) / RUNS
            best[i] = Run(*map(min, best[i], taken))
        if time.perf_counter() - began > MEASURED_S:
            break
    return best
