"""The threads that call the engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from engine.errors import AvatarError
from engine.types import Engine, Pcm, VideoFrame
from server.priority import give_way

T = TypeVar("T")
CALL_PATIENCE_S = 0.25  # a call is due so long after it was made; live frames mostly go first
MAX_CALLS = 8


class WorkerBusy(AvatarError):
    """Too many calls wait for the engine."""


class WorkerStopped(AvatarError):
    """The engine threads do not run (any more)."""


class Stream(Protocol):
    """A stream that is stepped, together with others that are due; by one engine thread at a time."""

    def deadline(self) -> float | None:
        """When its work is due; None when there is none."""

    def level_at(self, now: float) -> int:
        """Its step on the ladder of qualities; 0, the best, if it takes none at that monotonic time."""

    def begin(self, worst: int) -> tuple[Any, Pcm] | None:
        """Take the work: a state of the engine's and its 16 kHz sound (N,); None if it is gone.

        Args:
            worst: the worst step of the streams that share the engine.
        """

    def finish(self, frames: list[VideoFrame], began: float) -> None:
        """Take the frames of what `begin` gave; the step began at the monotonic time `began`."""

    def fail(self, error: Exception) -> None:
        """Take note that its step raised or the thread stopped; no more work is asked for."""


class _Call:
    """A function to be called once on an engine thread."""

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


Due = TypeVar("Due", _Call, Stream)


class EngineWorker:
    """The engine threads: earliest deadline first over all streams and calls.

    Streams that are due at that moment are shared among the threads that rest (`EngineConfig.engine_threads`
    there are); those of one thread are stepped together, as many as the engine was loaded for (`EngineConfig.batch`).
    Nobody is waited for, so a stream that stalls holds nobody up. A stream takes one step at a time, and
    calls run one after another.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        count = engine.config.engine_threads or 1
        self.busy_s = [0.0] * count  # so long 1, 2 ... threads stepped streams, since the start
        self.frames = 0  # made in that time
        self.steps, self.stepped = 0, 0  # steps, and the streams of them all
        self._calls: list[_Call] = []
        self._streams: list[Stream] = []
        self._in_hand: list[Stream] = []
        self._calling = False
        self._idle = count  # threads that have nothing in hand
        self._stepping, self._since = 0, 0.0  # threads that step, and since when so many
        self._lock = threading.RLock()
        self._resting: list[threading.Condition] = []  # of the threads that wait
        self._stopping, self._running = False, 0
        names = ["engine", *(f"engine-{i}" for i in range(2, count + 1))]
        self._threads = [threading.Thread(target=self._work, name=n, daemon=True) for n in names]

    @property
    def alive(self) -> bool:
        """Whether all engine threads run."""
        return all(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Start the threads."""
        self._running = len(self._threads)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop after the pieces of work in hand; blocks for their length. What waits fails."""
        self._stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def attach(self, stream: Stream) -> None:
        """Serve `stream` from now on; raises `WorkerStopped`."""
        self._add(self._streams, stream)

    def detach(self, stream: Stream) -> None:
        """Serve `stream` no more; a step in hand is finished."""
        self._remove(self._streams, stream)

    def _add(self, those: list[T], one: T) -> None:
        with self._lock:
            if self._stopping or not self.alive:
                raise WorkerStopped("the engine has stopped")
            those.append(one)
            self.wake()

    def _remove(self, those: list[T], one: T) -> None:
        with self._lock:
            if one in those:
                those.remove(one)

    def wake(self) -> None:
        """Say that some job may have new work."""
        with self._lock:
            if self._resting:  # who rested last: one stream keeps one thread warm
                self._resting.pop().notify()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._calls)

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` on an engine thread and return its result; no other call runs meanwhile.

        Raises:
            WorkerBusy: more than 8 calls wait.
            WorkerStopped: the threads do not run, or stop before they come to `work`.
            Exception: whatever `work` raised.
        """
        if len(self._calls) >= MAX_CALLS:
            raise WorkerBusy(f"{len(self._calls)} calls wait for the engine; try again in a moment")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        call = _Call(work, future, time.monotonic() + CALL_PATIENCE_S)
        self._add(self._calls, call)
        try:
            return await future
        finally:
            self._remove(self._calls, call)

    def _work(self) -> None:
        give_way()
        changed = threading.Condition(self._lock)  # notified when it is to look for work
        try:
            while (work := self._next(changed)) is not None:
                if isinstance(work, _Call):
                    with self._failing(work):
                        work.run()
                else:
                    self._step(work)
                self._let_go(work)
        finally:
            self._end()

    def _step(self, streams: list[Stream]) -> None:
        """Step streams together; one that cannot begin or finish fails alone."""
        began = time.monotonic()
        with self._lock:
            self._count_busy(1)
            worst = max((stream.level_at(began) for stream in self._streams), default=0)
        begun: list[tuple[Stream, tuple[Any, Pcm]]] = []
        for stream in streams:
            with self._failing(stream):
                step = stream.begin(worst)
                if step is not None:
                    begun.append((stream, step))
        made: list[list[VideoFrame]] = []
        with self._failing(*(stream for stream, _ in begun)):
            made = self.engine.step_many([step for _, step in begun])
        for (stream, _), frames in zip(begun, made, strict=False):  # none if the step raised
            with self._failing(stream):
                stream.finish(frames, began)
        with self._lock:
            self._count_busy(-1)
            self.steps, self.stepped = self.steps + 1, self.stepped + len(begun)
            self.frames += sum(len(frames) for frames in made)

    def _count_busy(self, change: int) -> None:
        """One thread more steps streams, or one fewer."""
        now = time.monotonic()
        if self._stepping:
            self.busy_s[self._stepping - 1] += now - self._since
        self._stepping, self._since = self._stepping + change, now

    @contextmanager
    def _failing(self, *those: _Call | Stream) -> Iterator[None]:
        """If what is done here raises, `those` are served no more and told why."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the trouble of some is not that of the others
            for one in those:
                if not isinstance(one, _Call):
                    self.detach(one)
                one.fail(error)

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            while self._resting:
                self.wake()

    def _end(self) -> None:
        """A thread ends, and with it all of them; the last one, beside whom nobody works, fails what waits."""
        self._stop()
        with self._lock:
            self._running -= 1
            if self._running:
                return
            waiting: list[_Call | Stream] = [*self._calls, *self._streams]
            self._calls, self._streams = [], []
        for one in waiting:
            one.fail(WorkerStopped("the engine has stopped"))

    def _next(self, changed: threading.Condition) -> _Call | list[Stream] | None:
        """Wait for work: the call that is due first, or streams that are; None to stop."""
        with self._lock:
            while not self._stopping:
                calls = [] if self._calling else sorted(_due(self._calls), key=_first)
                free = [stream for stream in self._streams if stream not in self._in_hand]
                streams = sorted(_due(free), key=_first)
                if len(calls) + len(streams) > 1:
                    self.wake()  # another thread looks what is left
                if calls and (not streams or calls[0][0] < streams[0][0]):
                    self._idle, self._calling = self._idle - 1, True
                    return calls[0][1]
                if streams:
                    share = min(-(-len(streams) // self._idle), self.engine.config.batch)
                    taken = [stream for _, stream in streams[:share]]
                    self._idle -= 1
                    self._in_hand += taken
                    return taken
                self._resting.append(changed)
                changed.wait()
        return None

    def _let_go(self, work: _Call | list[Stream]) -> None:
        """What `_next` gave is done."""
        with self._lock:
            self._idle += 1
            if isinstance(work, _Call):
                self._calling = False
            else:
                self._in_hand = [stream for stream in self._in_hand if stream not in work]


def _due(those: Sequence[Due]) -> list[tuple[float, Due]]:
    """Those that have work, and when it is due."""
    asked = ((one.deadline(), one) for one in those)
    return [(at, one) for at, one in asked if at is not None]


def _first(due: tuple[float, Any]) -> float:
    return due[0]
