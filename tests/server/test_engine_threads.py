"""Several engine threads: streams side by side, each by one thread at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from engine.types import Pcm, VideoFrame
from server.live.worker import EngineWorker, WorkerStopped
from tests.server.fake_engine import FakeEngine, FakeState

pytestmark = pytest.mark.timeout(30)
HOP = 640


class Watched(FakeEngine):
    """Takes note of who steps which streams, and when.

    `meet`: a step waits until so many threads are in one.
    """

    def __init__(self, *, threads: int = 2, batch: int = 4, meet: int = 0) -> None:
        super().__init__(side=64, threads=threads, batch=batch)
        self.by: defaultdict[int, set[str]] = defaultdict(set)
        self.overlaps = 0
        self._inside: list[int] = []
        self._lock = threading.Lock()
        self._meet = threading.Barrier(meet, timeout=10) if meet else None

    def step_many(self, streams: Sequence[tuple[FakeState, Pcm]]) -> list[list[VideoFrame]]:
        those = [id(state) for state, _ in streams]
        with self._lock:
            assert not set(those) & set(self._inside), "a stream is stepped twice at once"
            self.overlaps += bool(self._inside)
            self._inside += those
            for one in those:
                self.by[one].add(threading.current_thread().name)
        if self._meet is not None:
            self._meet.wait()
        time.sleep(0.002)
        made = super().step_many(streams)
        with self._lock:
            self._inside = [one for one in self._inside if one not in those]
        return made


class Speaks:
    """A stream with so many hops of sound, all due."""

    def __init__(self, engine: FakeEngine, hops: int, seed: int = 0, *, bad_at: int = -1) -> None:
        rng = np.random.default_rng(seed)
        self.sound = (0.2 * rng.standard_normal(hops * HOP)).astype(np.float32)
        self.state = engine.start(np.full((64, 64, 3), 40 * seed, np.uint8))
        self.frames: list[VideoFrame] = []
        self.failed: Exception | None = None
        self.draws, self.done = threading.Event(), threading.Event()
        self._at, self._hops, self._bad_at = 0, hops, bad_at

    def deadline(self) -> float | None:
        return float(self._at) if self._at < self._hops else None

    def level_at(self, now: float) -> int:
        return 0

    def begin(self, worst: int) -> tuple[FakeState, Pcm] | None:
        if self._at == self._bad_at:
            raise RuntimeError("as asked")
        hop, self._at = self.sound[self._at * HOP : (self._at + 1) * HOP], self._at + 1
        return self.state, hop

    def finish(self, frames: list[VideoFrame], began: float) -> None:
        self.frames += frames
        if self.frames:
            self.draws.set()
        if self._at == self._hops:
            self.done.set()

    def fail(self, error: Exception) -> None:
        self.failed = error
        self.done.set()


async def served(worker: EngineWorker, streams: Sequence[Speaks]) -> None:
    """Serve streams until each is done."""
    for stream in streams:
        worker.attach(stream)
    for stream in streams:
        assert await asyncio.to_thread(stream.done.wait, 10)


@pytest.fixture
async def worker() -> AsyncIterator[EngineWorker]:
    worker = EngineWorker(Watched())
    worker.start()
    yield worker
    await asyncio.to_thread(worker.stop)
    assert not worker.alive
    assert not any(thread.name.startswith("engine") for thread in threading.enumerate())


async def test_two_threads_step_streams_side_by_side() -> None:
    worker = EngineWorker(Watched(meet=2))  # alone, a step would wait in vain
    worker.start()
    streams = [Speaks(worker.engine, 1, seed) for seed in range(2)]
    await served(worker, streams)
    assert [stream.failed for stream in streams] == [None, None]
    assert worker.engine.batches == [1, 1], "both streams were given to one thread"
    await asyncio.to_thread(worker.stop)
    assert len(worker.busy_s) == 2
    assert worker.busy_s[1] > 0


async def test_a_stream_is_stepped_by_one_thread_at_a_time_and_its_frames_are_its_own(
    worker: EngineWorker,
) -> None:
    streams = [Speaks(worker.engine, 40, seed) for seed in range(3)]
    await served(worker, streams)
    assert worker.engine.overlaps > 10
    for stream in streams:
        assert stream.failed is None
        alone = FakeEngine(side=64)
        expected = alone.step(alone.start(stream.state.identity), stream.sound)
        assert [frame.index for frame in stream.frames] == [frame.index for frame in expected]
        for made, wanted in zip(stream.frames, expected, strict=True):
            np.testing.assert_array_equal(made.rgb, wanted.rgb)
    assert worker.stepped == 120
    assert worker.frames == sum(len(stream.frames) for stream in streams)


async def test_a_lone_stream_stays_with_one_thread(worker: EngineWorker) -> None:
    lone = Speaks(worker.engine, 3)
    await served(worker, [lone])
    await asyncio.sleep(0.05)
    for _ in range(20):  # it comes and goes, as sound does
        lone._hops += 1
        lone.done.clear()
        worker.wake()
        assert await asyncio.to_thread(lone.done.wait, 10)
        await asyncio.sleep(0.005)
    assert len(worker.engine.by[id(lone.state)]) == 1
    assert worker.busy_s[1] == 0


async def test_a_stream_that_fails_leaves_that_of_the_other_thread(worker: EngineWorker) -> None:
    bad, good = Speaks(worker.engine, 20, bad_at=5), Speaks(worker.engine, 20, 1)
    await served(worker, [bad, good])
    assert isinstance(bad.failed, RuntimeError)
    assert good.failed is None
    assert len(good.frames) == 18
    assert worker.alive


async def test_calls_run_one_after_another_and_hold_no_stream_up(worker: EngineWorker) -> None:
    inside, gate = [0, 0], threading.Event()

    def work() -> None:
        inside[0] += 1
        inside[1] = max(inside)
        gate.wait(10)
        inside[0] -= 1

    calls = [asyncio.ensure_future(worker.call(work)) for _ in range(3)]
    await asyncio.sleep(0.3)  # calls are due
    stream = Speaks(worker.engine, 5)
    await served(worker, [stream])
    assert len(stream.frames) == 3
    gate.set()
    await asyncio.gather(*calls)
    assert inside == [0, 1]


async def test_a_thread_that_dies_stops_the_other_after_its_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)  # no traceback on the screen
    worker = EngineWorker(Watched())
    worker.start()
    busy = Speaks(worker.engine, 10_000)
    worker.attach(busy)
    assert await asyncio.to_thread(busy.draws.wait, 10)

    def die() -> None:
        raise SystemExit

    with pytest.raises(WorkerStopped):
        await asyncio.wait_for(worker.call(die), 5)
    assert await asyncio.to_thread(busy.done.wait, 5)
    assert isinstance(busy.failed, WorkerStopped)
    assert len(busy.frames) == busy._at - 2  # the step in hand was finished
    assert not worker.alive
    with pytest.raises(WorkerStopped):
        worker.attach(Speaks(worker.engine, 1))
