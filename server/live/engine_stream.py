"""One session's stream at the engine: the queue of sound before it, the pictures that come of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from engine.types import Engine, Pcm, Quality, VideoFrame
from server.live.beeps import Beep, BeepFinder, BeepLog
from server.live.clips import Chunk, Picture
from server.live.quality import Ladder
from server.metrics import Metrics
from server.sound.intake import SOUND_RATE_HZ, Downsampler

log = logging.getLogger(__name__)
LIMIT_S = 0.4  # of sound that may wait for the engine
TOO_LATE_S = 0.06  # a picture is not drawn if it would be done so long after its sound
BLIND_S = 0.5  # but one is drawn after so long without any
SETTLING_FRAMES = 6  # after an interruption each mouth is painted: one that closes is not carried
PAINTED = Quality(paint_every=1)
UNDRAWN = 1 << 30  # `Quality.draw_every` of a step whose pictures nobody would see


class Cost(NamedTuple):
    """When a frame was made and what it took, in seconds."""

    made: float
    queued_s: float
    step_s: float


class Change(NamedTuple):
    """What a stream shows from its next frame on; None: as before."""

    asked: dict[type, Any] = {}  # prompts, the newest of each kind
    identity: Any = None
    settle: bool = False  # the mouth comes to rest


class EngineStream:
    """One session's stream at the engine: its state, and the queue of sound before it.

    Bound: `LIMIT_S` of sound. Overflow: all that waits is dropped but the newest chunk, so that
    overload never becomes a lasting delay; the face then misses it, the sound has left on its own
    way. Before it comes to that a `Ladder` lowers the quality of the pictures, and one whose sound
    would be gone before it is ready is not drawn at all.

    Args:
        deliver: takes the pictures; called on an engine thread, as `failed` and `quality_changed` are.
        leaves_at: when the sound of a place leaves at the latest, if that is known yet.
    """

    def __init__(
        self,
        engine: Engine,
        state: Any,
        deliver: Callable[[list[Picture]], None],
        failed: Callable[[Exception], None],
        *,
        metrics: Metrics,
        leaves_at: Callable[[int], float | None] = lambda place: None,
        quality_changed: Callable[[int], None] = lambda level: None,
        beeps: tuple[str, BeepLog] | None = None,
    ) -> None:
        self.dropped_s = 0.0
        self._engine = engine
        self._state = state
        self._deliver, self._failed = deliver, failed
        self._quality_changed = quality_changed
        self._leaves_at = leaves_at
        self._metrics = metrics
        self._beeps = beeps
        self._frame = SOUND_RATE_HZ // engine.config.stream.fps
        self._lookahead = engine.config.stream.lookahead_frames
        self._lock = threading.Lock()
        self._chunks: deque[Chunk] = deque()
        self._waiting = 0  # samples in the queue
        self._open = True
        self._change = Change()
        self._cut = 0  # what was said before this place is cut off
        self._unseen = 0  # pictures of places before this one are stale
        # The rest is touched by the engine thread that steps it.
        self._ladder = Ladder()
        self._quality = Quality()
        self._to_16k = Downsampler()
        self._finder = BeepFinder()
        self._taken = 0  # samples taken so far
        self._next = 0  # the frame that comes next
        self._drawn_at = -np.inf
        self._drawing: deque[float] = deque(maxlen=5)  # seconds that the last pictures took
        self._queued = 0.0  # when the newest of the sound in hand was queued
        self._marks: deque[tuple[int, int | None]] = deque()  # (first sample taken, its place)
        self._found: dict[int, Beep] = {}

    def push(self, chunk: Chunk) -> None:
        """Queue a chunk; any thread may call."""
        with self._lock:
            if not self._open:
                return
            self._chunks.append(chunk)
            self._waiting += len(chunk.pcm)
            if self._waiting <= LIMIT_S * SOUND_RATE_HZ:
                return
            while len(self._chunks) > 1:
                lost = len(self._chunks.popleft().pcm)
                self._waiting -= lost
                self.dropped_s += lost / SOUND_RATE_HZ
                self._metrics.dropped.labels(queue="sound").inc()

    def set_prompt(self, prompt: Any) -> None:
        """Express `prompt` from the next frame on; a newer one of its kind replaces it. For any thread."""
        with self._lock:
            self._change = self._change._replace(asked=self._change.asked | {type(prompt): prompt})

    def set_identity(self, identity: Any) -> None:
        """Show another face from the next frame on. Any thread may call."""
        with self._lock:
            self._change = self._change._replace(identity=identity)

    def interrupt(self, cut: int) -> None:
        """Drop the sound that waits, and draw no picture of places before `cut` any more.

        The engine hears silence at once, as much as it takes to let go of what it has heard, and
        the mouth comes to rest in the next pictures and not when the look-ahead has run out.
        """
        now = time.monotonic()
        silence = np.zeros(self._frame, dtype=np.int16)
        with self._lock:
            if not self._open:
                return
            self._cut = self._unseen = cut
            self._change = self._change._replace(settle=True)
            self._chunks.clear()
            count = self._lookahead + 1
            self._chunks.extend([Chunk(silence, None, None, now)] * count)
            self._waiting = count * self._frame

    def skip(self, before: int) -> None:
        """Draw no picture of places before that one any more: their sound is left out."""
        with self._lock:
            self._unseen = max(self._unseen, before)

    def go_on(self) -> None:
        """After a pause: what waited through it is due now, as if it had just come."""
        now = time.monotonic()
        with self._lock:
            self._chunks = deque(replace(chunk, queued=now) for chunk in self._chunks)

    def close(self) -> None:
        """Drop everything; the state goes as soon as an engine thread lets go of it."""
        with self._lock:
            self._open = False
            self._chunks.clear()
            self._waiting = 0
            self._state = None

    def deadline(self) -> float | None:
        """When the oldest chunk was queued; the longest wait is served first."""
        with self._lock:
            return self._chunks[0].queued if self._chunks else None

    def level_at(self, now: float) -> int:
        """The step of the ladder that counts for other streams."""
        return self._ladder.level_at(now)

    def begin(self, worst: int = 0) -> tuple[Any, Pcm] | None:
        """Take at most one frame of the waiting sound, after applying what is to change.

        Returns:
            the engine's state and sound (N,) at 16 kHz; None when nothing waits or it is closed.
        """
        chunks, state, change, cut = self._take()
        if not chunks or state is None:
            return None
        now = time.monotonic()
        if change.settle:
            self._engine.settle(state)
        if change.identity is not None:
            self._engine.set_identity(state, change.identity)
        for prompt in change.asked.values():
            self._engine.set_prompt(state, prompt)
        self._keep_up(now - chunks[0].queued, now, worst)
        for chunk in chunks:
            self._note(chunk)
        self._queued = chunks[-1].queued
        self._choose_quality(state, cut, now)
        return state, self._to_16k.push(np.concatenate([chunk.pcm for chunk in chunks]))

    def finish(self, frames: list[VideoFrame], began: float) -> None:
        """Hand on the frames of that step with their places."""
        if not frames:
            return
        made = time.monotonic()
        self._metrics.step_seconds.observe(made - began)
        self._metrics.made.labels(quality=str(self._ladder.level)).inc(len(frames))
        cost = Cost(made, began - self._queued, (made - began) / len(frames))
        self._next = frames[-1].index + 1
        if any(frame.fresh for frame in frames):
            self._drawn_at = made
            self._drawing.append(made - began)
        self._deliver([self._picture(frame, cost) for frame in frames])

    def fail(self, error: Exception) -> None:
        """Close this stream and tell its session."""
        log.error("a stream ended: the engine raised", exc_info=error)
        self.close()
        self._failed(error)

    def _take(self) -> tuple[list[Chunk], Any, Change, int]:
        """Take at most a frame of sound, the state, and what is to change."""
        with self._lock:
            chunks: list[Chunk] = []
            total = 0
            while self._chunks and (not chunks or total + len(self._chunks[0].pcm) <= self._frame):
                chunks.append(self._chunks.popleft())
                total += len(chunks[-1].pcm)
            self._waiting -= total
            change = Change()
            if chunks:
                change, self._change = self._change, change
            return chunks, self._state, change, self._cut

    def _choose_quality(self, state: Any, cut: int, now: float) -> None:
        """Draw the coming frame as the ladder says, or not at all if nobody would see it."""
        place, on_line = self._place(self._next)
        stale = on_line and place < self._unseen
        leaves = self._leaves_at(place) if on_line else None
        takes = sorted(self._drawing)[len(self._drawing) // 2] if self._drawing else 0.0
        late = leaves is not None and now + takes > leaves + TOO_LATE_S
        settling = 0 < cut <= place < cut + SETTLING_FRAMES * self._frame
        quality = PAINTED if settling or not on_line else self._ladder.quality
        if stale or (late and now - self._drawn_at < BLIND_S):
            quality = replace(quality, draw_every=UNDRAWN)
        if quality != self._quality:
            self._quality = quality
            self._engine.set_quality(state, quality)

    def _keep_up(self, behind_s: float, now: float, worst: int) -> None:
        """Lower the quality when the engine falls behind, raise it when it keeps up again."""
        before = self._ladder.level
        if not self._ladder.watch(behind_s, now, worst):
            return
        level, quality = self._ladder.level, self._ladder.quality
        how, moved = (logging.WARNING, "lowered") if level > before else (logging.INFO, "raised")
        words = "quality %s to step %d, %.0f ms behind: %s"
        log.log(how, words, moved, level, 1000 * behind_s, quality)
        self._quality_changed(level)

    def _note(self, chunk: Chunk) -> None:
        """Remember the place of what is taken and, in test mode, the beeps in the chunk."""
        if not self._marks or self._expected() != chunk.place:
            self._marks.append((self._taken, chunk.place))
        self._taken += len(chunk.pcm)
        if self._beeps is None:
            return
        session, beeps = self._beeps
        for sample in self._finder.push(chunk.pcm):
            beep = beeps.add(session, sample, self._frame)
            beep.mic_packet, beep.pcm = chunk.arrived, chunk.queued
            self._found[beep.frame] = beep

    def _expected(self) -> int | None:
        """The place that the next sample taken has if nothing was dropped or cut off."""
        sample, place = self._marks[-1]
        return None if place is None else place + self._taken - sample

    def _place(self, index: int) -> tuple[int, bool]:
        """The place of frame `index` and True, or its place in a silence that is on no line and False."""
        begin = index * self._frame
        while len(self._marks) > 1 and self._marks[1][0] <= begin:
            self._marks.popleft()
        sample, place = self._marks[0]
        return (place or 0) + begin - sample, place is not None

    def _picture(self, frame: VideoFrame, cost: Cost) -> Picture:
        """Join a frame with its place; frames come in order, none is left out."""
        place, on_line = self._place(frame.index)
        beep = self._found.pop(frame.index, None)
        if beep is not None:
            beep.frame_made = cost.made
        return Picture(
            index=frame.index,
            rgb=frame.rgb,
            place=place if on_line else None,
            made=cost.made,
            queued_s=cost.queued_s,
            step_s=cost.step_s,
            beep=beep,
            fresh=frame.fresh,
            motion=frame.motion,
        )
