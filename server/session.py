"""One viewer: a peer connection, a stream at the engine and the two queues around it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import av
from aiortc import RTCDataChannel
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from engine.types import Engine
from server import signaling
from server.aiortc_internals import packets_of, packets_received
from server.beeps import BeepLog
from server.clips import Chunk, Clip
from server.control import Control
from server.engine_stream import EngineStream
from server.intake import PACKET_SAMPLES, SOUND_RATE_HZ, Intake, Pcm48, to_mono
from server.metrics import Legs, Metrics, MicrophoneCounts
from server.pacing import Playout
from server.settings import ServerSettings
from server.tracks import AvatarAudioTrack, AvatarVideoTrack, PacedTrack
from server.worker import EngineWorker

log = logging.getLogger(__name__)
PACKET_S = PACKET_SAMPLES / SOUND_RATE_HZ
TICK_S = PACKET_S / 2
REPORT_S = 1.0
WATCH_S = 0.5
CLOSE_S = 3.0


class Session:
    """One viewer. Lives on the event loop; computes nothing."""

    def __init__(
        self,
        settings: ServerSettings,
        worker: EngineWorker,
        state: Any,
        metrics: Metrics,
        *,
        beeps: BeepLog | None = None,
        on_closed: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.id = secrets.token_urlsafe(12)
        self.generation = 0
        self.settings = settings
        self._worker = worker
        self._metrics = metrics
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        engine: Engine = worker.engine
        self.playout = Playout(engine.config.stream.fps)
        self.stream = EngineStream(
            engine,
            state,
            lambda clips: self._from_engine(self._deliver, clips),
            lambda error: self._from_engine(self._engine_failed, error),
            metrics=metrics,
            beeps=(self.id, beeps) if beeps is not None else None,
        )
        self.video = AvatarVideoTrack(self.playout, self._frame_sent, settings.frame_code)
        self.audio = AvatarAudioTrack(self.playout)
        self.pc = signaling.make_connection(settings)
        self._legs = Legs()
        self._shown = 0
        self._failed = False
        self.intake: Intake | None = None  # from when it is connected
        self._mic: tuple[MediaStreamTrack, Any] | None = None
        self._control = Control(self.interrupt)
        self._connected = asyncio.Event()
        self._over = asyncio.Event()
        self._listen()
        self._task = self._loop.create_task(self._run(), name=f"session {self.id}")

    async def answer(self, sdp: str) -> str:
        """Return the answer to the viewer's offer; raises `BadSdp`."""
        tracks: dict[str, PacedTrack] = {"audio": self.audio, "video": self.video}
        return await signaling.answer(self.pc, sdp, tracks, self.settings.codec)

    def interrupt(self) -> None:
        """Drop all that waits, in both queues and in flight; the face goes on with what is next."""
        self.generation += 1
        self.stream.interrupt()
        self.playout.interrupt(self.generation, time.monotonic())

    async def close(self) -> None:
        """End the session and wait until it is gone. May be called again."""
        self._over.set()
        await asyncio.wait([self._task])

    def _listen(self) -> None:
        """Bind the connection's events."""

        @self.pc.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            if track.kind == "audio" and self._mic is None:
                receivers = [t.receiver for t in self.pc.getTransceivers()]
                self._mic = (track, next(r for r in receivers if r.track is track))

        @self.pc.on("datachannel")
        def on_datachannel(channel: RTCDataChannel) -> None:
            self._control.attach(channel)

        @self.pc.on("connectionstatechange")
        def on_state() -> None:
            if self.pc.connectionState == "connected":
                self._connected.set()
            elif self.pc.connectionState in ("failed", "closed"):
                self._over.set()

    async def _run(self) -> None:
        """The session's task: from connected to over, whatever ends it."""
        try:
            with self._surviving("its life"):
                await self._first(self._connected, self.settings.connect_timeout_s)
                if not self._over.is_set() and self._connected.is_set():
                    await self._live()
        finally:
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

    async def _first(self, event: asyncio.Event, limit_s: float) -> None:
        """Wait for `event` or the end, at most `limit_s` seconds."""
        waits = [asyncio.ensure_future(e.wait()) for e in (event, self._over)]
        await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _live(self) -> None:
        self.intake = Intake(time.monotonic())
        self._worker.attach(self.stream)
        async with asyncio.TaskGroup() as group:
            parts = [self._hear(), self._fill(), self._report(), self._watch()]
            tasks = [group.create_task(part) for part in parts]
            await self._over.wait()
            for task in tasks:
                task.cancel()

    async def _hear(self) -> None:
        """Microphone to engine."""
        if self._mic is None or self.intake is None:
            return
        track, receiver = self._mic
        packets = packets_of(receiver)
        packets.arrivals = self.intake.arrivals
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if not isinstance(frame, av.AudioFrame) or frame.pts is None:
                continue
            now = time.monotonic()
            arrived = packets.arrived_at(frame.pts)
            self._feed(self.intake, self.intake.push(frame.pts, to_mono(frame), now, arrived))

    async def _fill(self) -> None:
        """To the engine what is due: sound that had to wait, silence while no microphone is heard."""
        assert self.intake is not None
        while True:
            self._feed(self.intake, self.intake.tick(time.monotonic()))
            await asyncio.sleep(TICK_S)

    def _feed(self, intake: Intake, pcm: Pcm48) -> None:
        if len(pcm):
            now = time.monotonic()
            if intake.arrived is not None:
                self._legs.add("mic", now - intake.arrived)
            self.stream.push(Chunk(pcm, self.generation, intake.arrived, now))
            self._worker.wake()

    async def _report(self) -> None:
        """Stats to the viewer, once a second."""
        last, shown = time.monotonic(), self._shown
        counts = MicrophoneCounts(self._metrics)
        while True:
            await asyncio.sleep(REPORT_S)
            now = time.monotonic()
            if self._mic is not None and self.intake is not None:
                counts.update(
                    lost=self.intake.lost,
                    late=self.intake.arrivals.late,
                    concealed_s=self.intake.concealed / SOUND_RATE_HZ,
                    delay_s=self.intake.target_delay_s,
                )
            dropped = self.playout.dropped + round(
                self.stream.dropped_s * self._worker.engine.config.stream.fps
            )
            self._control.send(
                {
                    "type": "stats",
                    "fps": round((self._shown - shown) / (now - last), 1),
                    "legs_ms": self._legs.take(),
                    "dropped": dropped,
                }
            )
            last, shown = now, self._shown

    async def _watch(self) -> None:
        """End the session when no packet came for `watchdog_s`, or its transport is gone."""
        transport = self.pc.getTransceivers()[0].receiver.transport
        seen, since = -1, time.monotonic()
        while True:
            await asyncio.sleep(WATCH_S)
            received = packets_received(transport)
            now = time.monotonic()
            if received != seen:
                seen, since = received, now
            if transport.state in ("closed", "failed") or now - since > self.settings.watchdog_s:
                self._over.set()
                return

    def _from_engine(self, function: Callable[[Any], None], argument: Any) -> None:
        """Hand over from the engine thread; a loop that has ended needs nothing more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, argument)

    def _deliver(self, clips: list[Clip]) -> None:
        """Take finished frames; stale ones die in the queue."""
        if self._over.is_set():
            return
        before = self.playout.dropped
        stream = self._worker.engine.config.stream
        for clip in clips:
            first_packet_waits = 1 / stream.fps - PACKET_S  # for the rest of its frame
            self._legs.add("hop", first_packet_waits)
            self._legs.add("lookahead", stream.lookahead_frames / stream.fps)
            self._legs.add("queue", clip.queued_s)
            self._legs.add("engine", clip.step_s)
            self.playout.push(clip, time.monotonic())
        self._metrics.dropped.labels(queue="playout").inc(self.playout.dropped - before)
        self.video.wake()
        self.audio.wake()

    def _engine_failed(self, error: Exception) -> None:
        self._count_failure()
        self._over.set()

    def _frame_sent(self, clip: Clip, now: float) -> None:
        self._legs.add("wait", now - clip.made)
        self._shown += 1
        self._metrics.frames.inc()
        if clip.beep is not None and clip.beep.frame_sent is None:
            clip.beep.frame_sent = now

    async def _release(self) -> None:
        """Give everything back, each part whatever another raises; the place is free in the end."""
        steps: dict[str, Callable[[], object]] = {
            "wait": self._over.set,
            "place at the engine": lambda: self._worker.detach(self.stream),
            "stream": self.stream.close,
            "video": self.video.stop,
            "audio": self.audio.stop,
            "playout": self._drop_media,
        }
        try:
            for name, step in steps.items():
                with self._surviving(name):
                    step()
            with self._surviving("connection"):
                await self._hang_up()
        finally:
            with self._surviving("place in the book"):
                self._on_closed(self)

    def _drop_media(self) -> None:
        self.playout.interrupt(self.generation + 1, time.monotonic())

    async def _hang_up(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.pc.close()
        except TimeoutError:
            log.warning("session %s: the connection took too long to close", self.id)
