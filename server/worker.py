"""The one thread that calls the engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from engine.errors import AvatarError
from engine.types import Engine

T = TypeVar("T")
CALL_PATIENCE_S = 0.25  # a call is due so long after it was made; live frames mostly go first
MAX_CALLS = 8


class WorkerBusy(AvatarError):
    """Too many calls wait for the engine."""


class WorkerStopped(AvatarError):
    """The engine thread does not run (any more)."""


class Job(Protocol):
    """Something the engine thread can do next."""

    def deadline(self) -> float | None:
        """When the work is due; None when there is none."""

    def run(self) -> None:
        """Do one piece of the work, on the engine thread."""

    def fail(self, error: Exception) -> None:
        """Take note that `run` raised or the thread stopped; no more pieces are asked for."""


class _Call:
    """A function to be called once on the engine thread."""

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any], due: float) -> None:
        self._work: Callable[[], Any] | None = work
        self._future = future
        self._loop = future.get_loop()
        self._due = due

    def deadline(self) -> float | None:
        return self._due if self._work is not None else None

    def run(self) -> None:
        work, self._work = self._work, None
        if work is not None and not self._future.cancelled():
            result = work()
            self._loop.call_soon_threadsafe(self._resolve, result, None)

    def fail(self, error: Exception) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._resolve, None, error)

    def _resolve(self, result: Any, error: Exception | None) -> None:
        if self._future.done():
            return
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


class EngineWorker:
    """The engine thread: earliest deadline first over all streams and calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the engine thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the piece of work in hand; blocks for its length. What waits fails."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def attach(self, job: Job) -> None:
        """Serve `job` from now on; raises `WorkerStopped`."""
        with self._changed:
            if self._stopping or not self.alive:
                raise WorkerStopped("the engine has stopped")
            self._jobs.append(job)
            self._changed.notify()

    def detach(self, job: Job) -> None:
        """Serve `job` no more; a piece in hand is finished."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def wake(self) -> None:
        """Say that some job may have new work."""
        with self._changed:
            self._changed.notify()

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` on the engine thread and return its result.

        Raises:
            WorkerBusy: more than 8 calls wait.
            WorkerStopped: the thread does not run, or stops before it comes to `work`.
            Exception: whatever `work` raised.
        """
        calls = sum(isinstance(job, _Call) for job in self._jobs)
        if calls >= MAX_CALLS:
            raise WorkerBusy(f"{calls} calls wait for the engine; try again in a moment")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        call = _Call(work, future, time.monotonic() + CALL_PATIENCE_S)
        self.attach(call)
        try:
            return await future
        finally:
            self.detach(call)

    def _work(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                try:
                    job.run()
                except Exception as error:  # noqa: BLE001 - one stream's trouble is its own
                    self.detach(job)
                    job.fail(error)
        finally:
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        with self._changed:
            self._stopping = True
            waiting, self._jobs = self._jobs, []
        for job in waiting:
            job.fail(WorkerStopped("the engine has stopped"))

    def _next_job(self) -> Job | None:
        """Wait for work and return the job whose deadline is first; None to stop."""
        with self._changed:
            while not self._stopping:
                due = [(job.deadline(), i) for i, job in enumerate(self._jobs)]
                ready = [(at, i) for at, i in due if at is not None]
                if ready:
                    return self._jobs[min(ready)[1]]
                self._changed.wait()
        return None
