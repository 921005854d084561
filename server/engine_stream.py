"""One viewer's stream at the engine: the queue of sound before it, the frames with their sound."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from engine.types import Engine, Pcm, VideoFrame
from server.beeps import Beep, BeepFinder, BeepLog
from server.clips import Chunk, Clip
from server.intake import SOUND_RATE_HZ, Downsampler, Pcm48
from server.metrics import Metrics
from server.quality import Ladder

log = logging.getLogger(__name__)
LIMIT_S = 0.4  # of sound that may wait for the engine


class Cost(NamedTuple):
    """When a frame was made and what it took, in seconds."""

    made: float
    queued_s: float
    step_s: float


class EngineStream:
    """One viewer's stream at the engine: its state, and the queue of sound before it.

    Bound: `LIMIT_S` of sound. Overflow: all that waits is dropped but the newest chunk, so that
    overload never becomes a lasting delay. What is dropped is missing from video and sound
    alike: frame i always shows samples [i * n, (i + 1) * n) of the sound that was taken.
    Before it comes to that, a `Ladder` lowers the quality of the frames, and the sound stays whole.
    """

    def __init__(
        self,
        engine: Engine,
        state: Any,
        deliver: Callable[[list[Clip]], None],
        failed: Callable[[Exception], None],
        *,
        metrics: Metrics,
        beeps: tuple[str, BeepLog] | None = None,
    ) -> None:
        self.dropped_s = 0.0
        self._engine = engine
        self._state = state
        self._deliver = deliver  # called on the engine thread
        self._failed = failed  # called on the engine thread
        self._metrics = metrics
        self._beeps = beeps
        self._frame = SOUND_RATE_HZ // engine.config.stream.fps
        self._lock = threading.Lock()
        self._chunks: deque[Chunk] = deque()
        self._waiting = 0  # samples in the queue
        self._open = True
        self._prompt: Any = None  # to be shown from the next frame on
        # The rest is touched by the engine thread alone.
        self._ladder = Ladder()
        self._to_16k = Downsampler()
        self._finder = BeepFinder()
        self._sound: Pcm48 = np.zeros(0, dtype=np.int16)  # taken, its frame not yet made
        self._first_frame = 0  # the frame that `_sound` begins with
        self._taken = 0  # samples taken so far
        self._queued = 0.0  # when the newest of the sound in hand was queued
        self._marks: deque[tuple[int, int]] = deque([(0, 0)])  # (first sample, generation)
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
        """Show `prompt` from the next frame on; a newer one replaces it. Any thread may call."""
        with self._lock:
            self._prompt = prompt

    def interrupt(self) -> None:
        """Drop the sound that waits; what is pushed next has a newer generation."""
        with self._lock:
            self._chunks.clear()
            self._waiting = 0

    def close(self) -> None:
        """Drop everything; the state goes as soon as the engine thread lets go of it."""
        with self._lock:
            self._open = False
            self._chunks.clear()
            self._waiting = 0
            self._state = None

    def deadline(self) -> float | None:
        """When the oldest chunk was queued; the longest wait is served first."""
        with self._lock:
            return self._chunks[0].queued if self._chunks else None

    def begin(self) -> tuple[Any, Pcm] | None:
        """Take at most one frame of the waiting sound, after applying a new prompt or quality.

        Returns:
            the engine's state and sound (N,) at 16 kHz; None when nothing waits or it is closed.
        """
        chunks, state, prompt = self._take()
        if not chunks or state is None:
            return None
        now = time.monotonic()
        if prompt is not None:
            self._engine.set_prompt(state, prompt)
        self._keep_up(state, now - chunks[0].queued, now)
        for chunk in chunks:
            self._note(chunk)
        self._queued = chunks[-1].queued
        pcm = np.concatenate([chunk.pcm for chunk in chunks])
        self._sound = np.concatenate([self._sound, pcm])
        return state, self._to_16k.push(pcm)

    def finish(self, frames: list[VideoFrame], began: float) -> None:
        """Hand on the frames of that step with their sound."""
        if not frames:
            return
        made = time.monotonic()
        self._metrics.step_seconds.observe(made - began)
        self._metrics.made.labels(quality=str(self._ladder.level)).inc(len(frames))
        cost = Cost(made, began - self._queued, (made - began) / len(frames))
        self._deliver([self._clip(frame, cost) for frame in frames])

    def fail(self, error: Exception) -> None:
        """Close this stream and tell its session."""
        log.error("a stream ended: the engine raised", exc_info=error)
        self.close()
        self._failed(error)

    def _take(self) -> tuple[list[Chunk], Any, Any]:
        """Take at most a frame of sound, the state, and the prompt if there is a new one."""
        with self._lock:
            chunks: list[Chunk] = []
            total = 0
            while self._chunks and (not chunks or total + len(self._chunks[0].pcm) <= self._frame):
                chunks.append(self._chunks.popleft())
                total += len(chunks[-1].pcm)
            self._waiting -= total
            prompt = None
            if chunks:
                prompt, self._prompt = self._prompt, None
            return chunks, self._state, prompt

    def _keep_up(self, state: Any, behind_s: float, now: float) -> None:
        """Lower the quality when the engine falls behind, raise it when it keeps up again."""
        before = self._ladder.level
        if not self._ladder.watch(behind_s, now):
            return
        level, quality = self._ladder.level, self._ladder.quality
        self._engine.set_quality(state, quality)
        worse = level > before
        log.log(
            logging.WARNING if worse else logging.INFO,
            "quality %s to step %d, %.0f ms behind: %s",
            "lowered" if worse else "raised",
            level,
            1000 * behind_s,
            quality,
        )

    def _note(self, chunk: Chunk) -> None:
        """Remember where a generation begins and, in test mode, the beeps in the chunk."""
        if chunk.generation != self._marks[-1][1]:
            self._marks.append((self._taken, chunk.generation))
        self._taken += len(chunk.pcm)
        if self._beeps is None:
            return
        session, beeps = self._beeps
        for sample in self._finder.push(chunk.pcm):
            beep = beeps.add(session, sample, self._frame)
            beep.mic_packet, beep.pcm = chunk.arrived, chunk.queued
            self._found[beep.frame] = beep

    def _clip(self, frame: VideoFrame, cost: Cost) -> Clip:
        """Join a frame with its sound; frames come in order, none is left out."""
        begin = (frame.index - self._first_frame) * self._frame
        sound = self._sound[begin : begin + self._frame]
        self._sound = self._sound[begin + self._frame :]
        self._first_frame = frame.index + 1
        while len(self._marks) > 1 and self._marks[1][0] <= frame.index * self._frame:
            self._marks.popleft()
        beep = self._found.pop(frame.index, None)
        if beep is not None:
            beep.frame_made = cost.made
        return Clip(
            index=frame.index,
            rgb=frame.rgb,
            sound=sound,
            generation=self._marks[0][1],
            made=cost.made,
            queued_s=cost.queued_s,
            step_s=cost.step_s,
            beep=beep,
            fresh=frame.fresh,
        )
