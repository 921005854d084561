"""One turn of an avatar in a program: its pictures, each with its own 40 ms of sound."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple

import numpy as np

from engine.types import Engine, RgbImage, VideoFrame
from engine.watermark.mark import Mark
from server.live.clips import Picture
from server.live.events import Event
from server.live.outlet import Heard, Outlet, Shown
from server.sound.intake import PACKET_SAMPLES, SOUND_RATE_HZ, Downsampler, Pcm48

FRAME_SAMPLES = 2 * PACKET_SAMPLES  # 40 ms
KEPT = 50  # pairs in real time that may wait to be fetched, 2 s
AHEAD = 5  # pairs that are drawn ahead as fast as it goes
_MS = SOUND_RATE_HZ // 1000


class Pair(NamedTuple):
    """A picture (H, W, 3) uint8 RGB and its own sound (1920,) int16 mono at 48 kHz."""

    frame: RgbImage
    sound: Pcm48


class Turn:
    """What was said and not yet fetched.

    Bound: 200 ms that were `put`, 2 s that were offered. Overflow: `put` waits; `offer` drops the
    oldest.
    """

    def __init__(self) -> None:
        self.missed = 0
        self.lead = 0  # samples of silence before the first of the speech
        self._given = 0
        self._work: asyncio.Task[None] | None = None
        self._pairs: asyncio.Queue[Pair | BaseException | None] = asyncio.Queue()
        self._fetched = asyncio.Event()

    @property
    def given_ms(self) -> float:
        """Milliseconds of the speech that were fetched."""
        return max(0, self._given - self.lead) / _MS

    async def put(self, pair: Pair) -> None:
        """Add a pair when there is room."""
        while self._pairs.qsize() >= AHEAD:
            self._fetched.clear()
            await self._fetched.wait()
        self._pairs.put_nowait(pair)

    def offer(self, pair: Pair) -> None:
        """Add a pair now."""
        if self._pairs.qsize() >= KEPT:
            self._pairs.get_nowait()
            self.missed += 1
        self._pairs.put_nowait(pair)

    async def next(self) -> Pair | None:
        """Wait for the next pair; None at the end. Raises what its work raised."""
        pair = await self._pairs.get()
        self._fetched.set()
        if isinstance(pair, BaseException):
            raise pair
        if pair is not None:
            self._given += len(pair.sound)
        return pair

    def fill(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` put pairs; the turn ends with it."""
        self._work = asyncio.ensure_future(work)
        self._work.add_done_callback(self._end_with)

    def stop(self) -> None:
        """End now: what was not fetched is dropped. May be called again."""
        if self._work is not None:
            self._work.cancel()
        while not self._pairs.empty():
            self._pairs.get_nowait()
        self._pairs.put_nowait(None)

    async def wait(self) -> None:
        """Wait until nothing is put any more."""
        if self._work is not None:
            await asyncio.wait([self._work])

    def _end_with(self, task: asyncio.Task[None]) -> None:
        self._pairs.put_nowait(None if task.cancelled() else task.exception())


class Recording:
    """A stream of the engine that is drawn whole. Touched by one engine thread at a time."""

    def __init__(self, engine: Engine, identity: Any, prompt: Any, mark: Mark) -> None:
        self._engine, self._mark = engine, mark
        self._state = engine.start(identity, seed=0)
        engine.set_prompt(self._state, prompt)
        self._to_16k = Downsampler()
        self._held_back = (1 + engine.config.stream.lookahead_frames) * FRAME_SAMPLES
        self._fed = 0  # samples, of silence too
        self._first = 0  # the frame that the turn begins with
        self._sound: Pcm48 = np.zeros(0, np.int16)  # whose frame is not drawn yet
        self._open = False  # the turn was not ended

    def begin(self) -> None:
        """Begin a turn: what is left of the one before is let go of."""
        if self._open:
            self.end()
        self._first, self._open = self._fed // FRAME_SAMPLES, True

    def push(self, pcm: Pcm48) -> list[Pair]:
        """Take more sound (N,); returns what it completed."""
        self._sound = np.concatenate([self._sound, pcm])
        return self._pairs(self._step(pcm))

    def end(self) -> list[Pair]:
        """Fill up the last frame and return what was held back."""
        pairs = self.push(np.zeros(-self._fed % FRAME_SAMPLES, np.int16))
        pairs += self._pairs(self._step(np.zeros(self._held_back, np.int16)))
        self._sound, self._open = np.zeros(0, np.int16), False
        return pairs

    def express(self, prompt: Any) -> None:
        """Express `prompt` (the engine's) from the next frame on."""
        self._engine.set_prompt(self._state, prompt)

    def show(self, identity: Any) -> None:
        """Show another face from the next frame on."""
        self._engine.set_identity(self._state, identity)

    def _step(self, pcm: Pcm48) -> list[VideoFrame]:
        self._fed += len(pcm)
        [frames] = self._engine.step_many([(self._state, self._to_16k.push(pcm))])
        return frames

    def _pairs(self, frames: list[VideoFrame]) -> list[Pair]:
        """Each frame (H, W, 3) of the turn with its sound; those of the silence around it go."""
        pairs = []
        for frame in frames:
            if frame.index >= self._first and len(self._sound) >= FRAME_SAMPLES:
                pairs.append(Pair(self._mark.on_rgb(frame.rgb), self._sound[:FRAME_SAMPLES]))
                self._sound = self._sound[FRAME_SAMPLES:]
        return pairs


class Pairing(Outlet):
    """A receiver of a live session that pairs what leaves with an utterance.

    A pair begins where the engine's frame does. Sound never waits: a picture that is late is left out,
    and the one before it stands in.
    """

    def __init__(self, turn: Turn, utterance: str) -> None:
        super().__init__()
        self.over = asyncio.Event()  # the utterance is, and all of it is in the turn
        self.moved = asyncio.Event()  # something left
        self._turn, self._utterance = turn, utterance
        self._frame: Picture | None = None
        self._shown_at = 0  # the sound's time stamp at which the last fresh picture began
        self._before: Pcm48 = np.zeros(PACKET_SAMPLES, np.int16)  # the packet before the utterance
        self._begun, self._ending = False, False
        self._halves: list[Pcm48] = []  # packets that wait for their second half, or for a picture

    def show(self, shown: Shown) -> None:
        """Take a picture."""
        if self._frame is None or shown.picture.rgb is not self._frame.rgb:
            stamp = int(shown.frame.pts or 0) * SOUND_RATE_HZ // 90_000
            self._shown_at = stamp // PACKET_SAMPLES * PACKET_SAMPLES
            self._frame = shown.picture
        self._give()

    def hear(self, heard: Heard) -> None:
        """Take a packet of sound."""
        self.moved.set()
        if not self._begun and any(part.utterance == self._utterance for part in heard.spoken):
            self._begun = True
            if (heard.pts - self._shown_at) % FRAME_SAMPLES:
                self._halves.append(self._before)
                self._turn.lead = PACKET_SAMPLES
        self._before = heard.pcm
        if self._begun and not self.over.is_set():
            self._halves.append(heard.pcm)
            self._give()

    def follow(self, event: Event) -> None:
        """Take note of an event of the session."""
        mine = event.data.get("utterance") == self._utterance
        dropped = event.type == "interrupted" and self._utterance in event.data["dropped"]
        if dropped or event.type == "closing":
            self.over.set()
            self.moved.set()
        elif mine and event.type == "speaking_stopped":
            self._ending = True
            self._give()

    def _give(self) -> None:
        """Hand over whole pairs once there is a picture."""
        if self._frame is None:
            return
        while len(self._halves) > 1:
            self._turn.offer(Pair(self._frame.marked.copy(), np.concatenate(self._halves[:2])))
            del self._halves[:2]
        if self._ending and not self._halves:
            self.over.set()
