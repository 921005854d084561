"""The engine thread: order of service, calls, and trouble that stays where it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from engine.errors import PortraitRefused
from engine.types import VideoFrame
from server.live.worker import MAX_CALLS, EngineWorker, WorkerBusy, WorkerStopped
from tests.server.fake_engine import FakeEngine, FakeState

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
async def worker() -> AsyncIterator[EngineWorker]:
    worker = EngineWorker(FakeEngine())
    worker.start()
    yield worker
    await asyncio.to_thread(worker.stop)
    assert not worker.alive


NOTHING = np.zeros(0, np.float32)


class Work:
    """A stream with steps due at given times; writes down what was done."""

    def __init__(self, name: str, due: list[float], done: list[str], bad: str = "") -> None:
        self.name, self.due, self.done, self.bad = name, due, done, bad
        self.failed: Exception | None = None
        self.state = FakeState(np.zeros((64, 64, 3), np.uint8))

    def deadline(self) -> float | None:
        return self.due[0] if self.due else None

    def level_at(self, now: float) -> int:
        return 0

    def begin(self, worst: int) -> tuple[FakeState, np.ndarray] | None:
        self.due.pop(0)
        if self.bad == "begin":
            raise RuntimeError("as asked")
        if self.bad == "gone":
            return None
        return self.state, np.zeros(1, np.int16) if self.bad == "step" else NOTHING

    def finish(self, frames: list[VideoFrame], began: float) -> None:
        if self.bad == "finish":
            raise RuntimeError("as asked")
        self.done.append(self.name)

    def fail(self, error: Exception) -> None:
        self.failed = error


async def finish(worker: EngineWorker) -> None:
    """Wait until everything due before now is done; a call is due a little later."""
    await worker.call(lambda: None)


async def test_the_earliest_deadline_goes_first(worker: EngineWorker) -> None:
    done: list[str] = []
    gate = threading.Event()
    blocked = asyncio.ensure_future(worker.call(gate.wait))
    await asyncio.sleep(0.3)
    for name, due in (("late", [5.0, 6.0]), ("early", [1.0, 5.5])):
        worker.attach(Work(name, due, done))
    gate.set()
    await blocked
    await finish(worker)
    assert done == ["early", "late", "early", "late"]


@pytest.mark.parametrize("where", ["begin", "step", "finish"])
async def test_a_stream_that_raises_is_told_and_others_go_on(
    worker: EngineWorker, where: str
) -> None:
    done: list[str] = []
    bad, good = Work("bad", [1.0, 1.5], done, bad=where), Work("good", [2.0], done)
    worker.attach(bad)
    worker.attach(good)
    await finish(worker)
    assert isinstance(bad.failed, RuntimeError if where != "step" else ValueError)
    assert bad.due == [1.5]  # it is asked no more
    assert done == ["good"]
    assert good.failed is None
    assert worker.alive


async def held(worker: EngineWorker, streams: list[Work]) -> None:
    """Let all of `streams` fall due while the engine is busy, then serve them."""
    gate = threading.Event()
    blocked = asyncio.ensure_future(worker.call(gate.wait))
    await asyncio.sleep(0.3)
    for stream in streams:
        worker.attach(stream)
    gate.set()
    await blocked
    await finish(worker)


@pytest.fixture
async def pair_worker() -> AsyncIterator[EngineWorker]:
    """The worker of an engine that was loaded for two streams at once."""
    worker = EngineWorker(FakeEngine(batch=2))
    worker.start()
    yield worker
    await asyncio.to_thread(worker.stop)


async def test_streams_that_are_due_are_stepped_together(pair_worker: EngineWorker) -> None:
    done: list[str] = []
    due = {"last": [3.0], "first": [1.0, 4.0], "second": [2.0]}
    await held(pair_worker, [Work(name, at, done) for name, at in due.items()])
    assert done == ["first", "second", "last", "first"]
    assert pair_worker.engine.batches == [2, 2]


async def test_a_stream_without_work_is_not_waited_for(pair_worker: EngineWorker) -> None:
    done: list[str] = []
    stalled, gone = Work("stalled", [], done), Work("gone", [1.0], done, bad="gone")
    await held(pair_worker, [stalled, gone, Work("alive", [2.0, 3.0], done)])
    assert done == ["alive", "alive"]
    assert pair_worker.engine.batches == [1, 1]
    assert stalled.failed is None
    assert gone.failed is None


async def test_of_a_pair_only_the_one_that_cannot_begin_or_finish_fails(
    pair_worker: EngineWorker,
) -> None:
    done: list[str] = []
    bad = [Work("b", [1.0], done, bad="begin"), Work("f", [3.0], done, bad="finish")]
    good = [Work("one", [2.0], done), Work("two", [4.0], done)]
    await held(pair_worker, [*bad, *good])
    assert sorted(done) == ["one", "two"]
    assert all(isinstance(work.failed, RuntimeError) for work in bad)
    assert all(work.failed is None for work in good)


async def test_a_step_that_raises_ends_the_streams_that_shared_it(
    pair_worker: EngineWorker,
) -> None:
    done: list[str] = []
    shared = [Work("one", [1.0], done, bad="step"), Work("two", [2.0], done)]
    apart = Work("three", [3.0], done)
    await held(pair_worker, [*shared, apart])
    assert all(isinstance(work.failed, ValueError) for work in shared)
    assert done == ["three"]


async def test_a_detached_job_is_served_no_more(worker: EngineWorker) -> None:
    done: list[str] = []
    job = Work("job", [1.0], done)
    worker.attach(job)
    await finish(worker)
    worker.detach(job)
    worker.detach(job)
    job.due.append(2.0)
    worker.wake()
    await finish(worker)
    assert done == ["job"]


async def test_a_call_runs_on_the_engine_thread_and_returns(worker: EngineWorker) -> None:
    assert await worker.call(lambda: threading.current_thread().name) == "engine"


async def test_a_call_raises_what_its_work_raised(worker: EngineWorker) -> None:
    def refuse() -> None:
        raise PortraitRefused("no_face", "nobody there")

    with pytest.raises(PortraitRefused, match="nobody"):
        await worker.call(refuse)
    assert await worker.call(lambda: 7) == 7


async def test_a_cancelled_call_leaves_nothing_behind(worker: EngineWorker) -> None:
    gate, ran = threading.Event(), []
    first = asyncio.ensure_future(worker.call(gate.wait))
    second = asyncio.ensure_future(worker.call(lambda: ran.append(1)))
    await asyncio.sleep(0.02)
    second.cancel()
    await asyncio.sleep(0.02)
    gate.set()
    await first
    assert await worker.call(lambda: 7) == 7
    assert ran == []
    gate.clear()
    calls = [asyncio.ensure_future(worker.call(gate.wait)) for _ in range(MAX_CALLS)]
    await asyncio.sleep(0.02)
    gate.set()
    await asyncio.gather(*calls)  # all places are free


async def test_too_many_calls_are_refused(worker: EngineWorker) -> None:
    gate = threading.Event()
    calls = [asyncio.ensure_future(worker.call(gate.wait)) for _ in range(MAX_CALLS)]
    await asyncio.sleep(0.02)
    with pytest.raises(WorkerBusy, match="8 calls"):
        await worker.call(lambda: None)
    gate.set()
    await asyncio.gather(*calls)


async def test_stopping_fails_every_call_that_waits() -> None:
    worker = EngineWorker(FakeEngine())
    worker.start()
    gate, ran = threading.Event(), []
    in_hand = asyncio.ensure_future(worker.call(gate.wait))
    await asyncio.sleep(0.3)  # the first one is being served
    waiting = [asyncio.ensure_future(worker.call(lambda: ran.append(1))) for _ in range(3)]
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(asyncio.to_thread(worker.stop))
    await asyncio.sleep(0.05)
    gate.set()
    await stopping
    assert await asyncio.wait_for(in_hand, 5)
    for call in waiting:
        with pytest.raises(WorkerStopped, match="has stopped"):
            await asyncio.wait_for(call, 5)
    assert ran == []


async def test_stopping_tells_every_stream_that_is_still_served() -> None:
    worker = EngineWorker(FakeEngine())
    worker.start()
    job = Work("job", [], [])
    worker.attach(job)
    await asyncio.to_thread(worker.stop)
    assert isinstance(job.failed, WorkerStopped)


async def test_an_engine_thread_that_dies_fails_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)  # no traceback on the screen
    worker = EngineWorker(FakeEngine())
    worker.start()

    def die() -> None:
        raise SystemExit

    with pytest.raises(WorkerStopped):
        await asyncio.wait_for(worker.call(die), 5)
    with pytest.raises(WorkerStopped):
        await worker.call(lambda: None)


@pytest.mark.parametrize("started", [False, True])
async def test_a_worker_that_does_not_run_refuses_calls_and_streams(started: bool) -> None:
    worker = EngineWorker(FakeEngine())
    if started:
        worker.start()
        await asyncio.to_thread(worker.stop)
    with pytest.raises(WorkerStopped):
        await worker.call(lambda: None)
    with pytest.raises(WorkerStopped):
        worker.attach(Work("job", [1.0], []))
