"""One avatar that is live: its inputs, its stream at the engine, what leaves it and who is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from server.live.broadcast import Broadcast
from server.live.clips import Picture
from server.live.engine_stream import EngineStream
from server.live.events import Event, EventHub, Mood
from server.live.figures import Figures
from server.live.line import SoundLine
from server.live.names import new_session, resume_token
from server.live.outlet import Outlet
from server.live.pacing import Playout
from server.live.speech import SpeechInput
from server.live.surroundings import SessionOptions, Surroundings
from server.logs import session_id
from server.sound.intake import Intake, Pcm48

log = logging.getLogger(__name__)
LOOK_S = 0.1


class Session:
    """One live avatar. On the event loop; computes nothing.

    While somebody receives (`attach`) its line of sound flows in real time. Without receivers the
    avatar pauses, and after a while it ends; a `hold` keeps it.

    Args:
        admit: asked once, when the first receiver comes; False: there is no place.
    """

    def __init__(
        self,
        shared: Surroundings,
        state: Any,
        options: SessionOptions,
        *,
        admit: Callable[[Session], bool] = lambda session: True,
        on_closed: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.settings = settings = shared.settings
        self.id = options.session_id or new_session(settings.replica)
        self.token = resume_token(settings.cluster_secret, self.id)
        self.portrait_id, self.subject, self.prompt = options.portrait_id, options.subject, ""
        self.mood: Mood = "idle"
        self.closed_for: str | None = None  # why it ended
        self._microphone: object | None = None
        self.on_close: list[Callable[[], Awaitable[None]]] = []  # connections that end with it
        self.events, self.mark = EventHub(), shared.mark_of(self.id)  # in every picture
        self.speech = SpeechInput(self.events)
        engine, stream = shared.worker.engine, shared.worker.engine.config.stream
        failed = partial(self._from_engine, self._engine_failed)
        self.figures = Figures(shared.metrics, stream)
        self.playout = Playout(stream.fps, stream.lookahead_frames)
        self.stream = EngineStream(
            engine,
            state,
            shared.converter.before(partial(self._from_engine, self._deliver), failed, self.mark),
            failed,
            metrics=shared.metrics,
            leaves_at=self.playout.clock.latest_at,
            quality_changed=partial(self._from_engine, self._tell_quality),
            beeps=(self.id, shared.beeps) if shared.beeps is not None else None,
        )
        frames = shared.frames
        self.broadcast = Broadcast(
            self.playout,
            shown=self.figures.left,
            heard=self.speech.played,
            spoken=self.speech.spoken,
            coded=partial(frames.add, self.id) if frames is not None else None,
        )
        self.line = SoundLine(
            self.stream,
            self.playout,
            self.broadcast,
            self.speech,
            self.figures,
            voice=options.voice,
            wake=shared.worker.wake,
        )
        self._worker, self._metrics = shared.worker, shared.metrics
        self._admit, self._on_closed = admit, on_closed
        self._loop = asyncio.get_running_loop()
        self._failed, self._was_live, self.holds = False, False, 0  # `holds`: doors that keep it
        asked_s = options.expires_s
        self._patience_s = self.settings.connect_timeout_s if asked_s is None else asked_s
        self._expires = time.monotonic() + self._patience_s
        self._look, self._over = asyncio.Event(), asyncio.Event()  # `_look`: somebody came or went
        self.events.subscribe(self._follow_speech)
        self._task = self._loop.create_task(self._run(), name=f"session {self.id}")

    @property
    def live(self) -> bool:
        """Whether somebody receives it."""
        return bool(self.broadcast.outlets)

    @property
    def microphone(self) -> object | None:
        """Who is heard: whose sound `hear` takes."""
        return self._microphone

    @microphone.setter
    def microphone(self, by: object | None) -> None:
        self._microphone = by
        self.line.renew()

    def attach(self, outlet: Outlet) -> bool:
        """Send to `outlet` from now on; False, and the session ends, if there is no place for it."""
        if self._over.is_set():
            return False
        if not self._was_live and not self._admit(self):
            self._end("full")
            return False
        self.broadcast.outlets.append(outlet)
        self._expires = 0.0
        self._look.set()
        if not self._was_live:
            self._was_live = True
            self.events.emit("ready", session_id=self.id)
        self.events.emit("viewers", count=len(self.broadcast.outlets))
        return True

    def detach(self, outlet: Outlet, *, for_good: bool = False) -> None:
        """Send to `outlet` no more; `for_good` if nobody will come in its place. May be called again."""
        outlet.close()
        if outlet not in self.broadcast.outlets:
            return
        self.broadcast.outlets.remove(outlet)
        patience_s = 0 if for_good else self.settings.resume_s
        self._expires = max(self._expires, time.monotonic() + patience_s)
        self._look.set()
        self.events.emit("viewers", count=len(self.broadcast.outlets))

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the session inside the block though nobody receives it."""
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1
            self._expires = max(self._expires, time.monotonic() + self._patience_s)

    def hear(self, pts: int, pcm: Pcm48, arrived: float | None, *, by: object) -> None:
        """Take a decoded packet (N,) of the microphone of `by`: who is heard, or is first to speak."""
        if self.microphone is None:
            self.microphone = by
        if by is not self.microphone:
            return
        self.line.hear(pts, pcm, arrived)

    def interrupt(self) -> tuple[str | None, float]:
        """Cut off what is being said, everywhere; returns the utterance and its ms that were played."""
        return self.line.interrupt()

    def set_mood(self, mood: Mood) -> None:
        """Say what the assistant does while it is silent."""
        if mood != self.mood:
            self.mood = mood
            self.events.emit("state", state=mood)

    def express(self, prompt: Any, words: str) -> None:
        """Express `prompt` (the engine's, read from these words) from the next frame on."""
        self.prompt = words
        self.stream.set_prompt(prompt)
        self.events.emit("prompt", prompt=str(prompt))

    def show_portrait(self, portrait_id: str, identity: Any) -> None:
        """Show another enrolled face from the next frame on."""
        self.portrait_id = portrait_id
        self.stream.set_identity(identity)
        self.events.emit("portrait", portrait_id=portrait_id)

    async def close(self, reason: str = "closed") -> None:
        """End the session and wait until it is gone. May be called again."""
        self._end(reason)
        await asyncio.wait([self._task])

    def _end(self, reason: str) -> None:
        if self.closed_for is None:
            self.closed_for = reason
            self.events.emit("closing", reason=reason)
        self._over.set()
        self._look.set()

    async def _run(self) -> None:
        """The session's task: from made to over, whatever ends it."""
        session_id.set(self.id)  # of what is logged from here on
        try:
            with self._surviving("its life"):
                while await self._somebody():
                    await self._live()
        finally:
            self._end("failed" if self._failed else "closed")
            await self._release()

    @contextlib.contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """Log an error and go on after it: one session's trouble is its own."""
        try:
            yield
        except Exception as error:  # broad on purpose: nothing may keep a session from its release
            log.error("session %s: %s ended by an error", self.id, what, exc_info=error)
            self._count_failure()

    def _count_failure(self) -> None:
        if not self._failed:
            self._failed = True
            self._metrics.failed.inc()

    async def _somebody(self) -> bool:
        """Wait until somebody receives; False if it is over or nobody came in time."""
        while not self._over.is_set() and not self.live:
            if not self.holds and time.monotonic() >= self._expires:
                self._end("expired")
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look.wait()
        return not self._over.is_set()

    async def _live(self) -> None:
        """Feed the line and hand on what leaves until nobody receives, or it is over."""
        self.line.begin()
        self._worker.attach(self.stream)
        try:
            async with asyncio.TaskGroup() as group:
                report = self.figures.report(self.events, self._heard_intake)
                parts = [self.line.fill(), self.broadcast.run(), report]
                tasks = [group.create_task(part) for part in parts]
                while self.live and not self._over.is_set():
                    self._look.clear()
                    await self._look.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self.line.end()
            self._worker.detach(self.stream)

    def _heard_intake(self) -> Intake | None:
        return self.line.intake if self.microphone is not None else None

    def _from_engine(self, function: Callable[[Any], None], argument: Any) -> None:
        """Hand over from an engine thread; a loop that has ended needs nothing more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, argument)

    def _deliver(self, pictures: list[Picture]) -> None:
        """Take finished pictures; stale ones die in the queue."""
        if self._over.is_set():
            return
        for picture in pictures:
            self.figures.made(picture)
            self.playout.show(picture, time.monotonic())
        self.figures.lost(self.playout.dropped - self.figures.dropped)
        self.broadcast.wake()

    def _engine_failed(self, error: BaseException) -> None:
        self._count_failure()
        self.events.emit("error", code="engine_failed", message=f"the engine failed: {error}")
        self._end("failed")

    def _tell_quality(self, level: int) -> None:
        self.events.emit("quality", level=level)

    def _follow_speech(self, event: Event) -> None:
        """While it speaks its mood is `speaking`, afterwards `idle`."""
        if event.type == "speaking_started":
            self.set_mood("speaking")
        elif event.type == "speaking_stopped" and self.mood == "speaking":
            self.set_mood("idle")

    async def _release(self) -> None:
        """Give everything back, each part whatever another raises; the place is free in the end."""
        try:
            for outlet in list(self.broadcast.outlets):
                with self._surviving("an outlet"):
                    outlet.close()
            self.broadcast.outlets.clear()
            with self._surviving("place at the engine"):
                self._worker.detach(self.stream)
            with self._surviving("stream"):
                self.stream.close()
            for hang_up in list(self.on_close):
                with self._surviving("connection"):
                    await hang_up()
        finally:
            with self._surviving("place in the book"):
                self._on_closed(self)
