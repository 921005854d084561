"""A line of sound and its pictures on a clock of its own: nothing here waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from engine.types import VideoFrame
from server.live import engine_stream
from server.live.clips import Chunk, Picture
from server.live.clock import MAX_EXTRA_S, PACKET_S
from server.live.engine_stream import EngineStream
from server.live.pacing import Playout
from server.metrics import Metrics
from server.sound.intake import Pcm48
from tests.server.fake_engine import FakeEngine

FRAME_S, PACKET = 0.04, 960
LOOKAHEAD_S = 0.12  # of two frames and the frame itself
UNDRAWN_S = 0.002  # of the engine's time
RGB = np.zeros((64, 64, 3), dtype=np.uint8)


def picture(index: int, *, fresh: bool = True, placed: bool = True) -> Picture:
    return Picture(index, RGB, 1920 * index if placed else None, made=0.0, fresh=fresh)


def tone(packet: int) -> Pcm48:
    """A loud packet of which each sample tells its place."""
    return np.asarray(5000 + (np.arange(PACKET) + PACKET * packet) % 20_000, dtype=np.int16)


def silence(packet: int) -> Pcm48:
    return np.zeros(PACKET, dtype=np.int16)


class Left(NamedTuple):
    """What left, and when."""

    at: float
    place: int | None
    pts: int


class Line:
    """A playout that is looked at every millisecond."""

    def __init__(self) -> None:
        self.playout = Playout(25, 2)
        self.pictures: list[Left] = []  # those that were not sent before
        self.repeats: list[Left] = []
        self._last: Picture | None = None
        self.sounds: list[Left] = []
        self.heard: list[Pcm48] = []
        self.delays: list[float] = []  # of the line, behind what is fed
        self.at_ms = 0
        self.every_ms: Callable[[], None] = lambda: None
        self._waiting: deque[tuple[float, Picture]] = deque()  # pictures that will be ready

    @property
    def now(self) -> float:
        return self.at_ms / 1000

    def run(
        self,
        seconds: float,
        ready: Iterable[tuple[float, Picture]] = (),
        sound: Callable[[int], Pcm48] | None = tone,
    ) -> None:
        """Feed sound in real time and show the pictures when they are ready."""
        self._waiting.extend((round(at, 6), each) for at, each in ready)
        end = self.at_ms + round(1000 * seconds)
        while self.at_ms < end:
            if sound is not None and self.at_ms % 20 == 0:
                self.playout.hear(sound(self.at_ms // 20), self.now)
                base = self.playout.clock.leave_at(0)
                assert base is not None
                self.delays.append(base)
            while self._waiting and self._waiting[0][0] <= self.now:
                self.playout.show(self._waiting.popleft()[1], self.now)
            self.every_ms()
            self.look()
            self.at_ms += 1

    def look(self) -> None:
        while (sound := self.playout.take_sound(self.now)) is not None:
            packet, pts = sound
            self.sounds.append(Left(self.now, packet.place, pts))
            self.heard.append(packet.pcm)
        if (taken := self.playout.take_picture(self.now)) is not None:
            those = self.repeats if taken[0] is self._last else self.pictures
            those.append(Left(self.now, taken[0].place, taken[1]))
            self._last = taken[0]

    def gaps(self) -> list[float]:
        """By how much later (above 0) than its sound each picture left."""
        left = {sound.place: sound.at for sound in self.sounds}
        return [each.at - left[each.place] for each in self.pictures if each.place in left]


def on_time(count: int, lateness: float = 0.0, begin: int = 0) -> list[tuple[float, Picture]]:
    """Pictures that are ready as soon as their look-ahead was fed, or so much later."""
    fed = LOOKAHEAD_S - PACKET_S  # its last packet
    return [(i * FRAME_S + fed + lateness, picture(i)) for i in range(begin, begin + count)]


def check_sound(line: Line) -> None:
    """Whole, in order, evenly spaced, no later than the bound."""
    assert [s.place for s in line.sounds] == [PACKET * i for i in range(len(line.sounds))]
    assert line.playout.replaced == 0
    assert np.abs(np.diff([s.at for s in line.sounds]) - PACKET_S).max() <= 0.08 * PACKET_S + 0.001
    assert max(line.delays) <= LOOKAHEAD_S + MAX_EXTRA_S + 1e-6
    assert (np.diff([s.pts for s in line.sounds]) > 0).all()
    assert (np.diff([p.pts for p in line.pictures]) > 0).all()


class SimulatedEngine:
    """A line whose pictures come of an engine that takes `cost(frame)` seconds for each it draws."""

    def __init__(self, patch: pytest.MonkeyPatch, cost: Callable[[int], float]) -> None:
        self.line, self.cost = Line(), cost
        self.drawn: list[int] = []  # frames
        self.engine = FakeEngine(side=64)
        self.stream = EngineStream(
            self.engine,
            self.engine.start(np.full((64, 64, 3), 77, np.uint8)),
            self._show,
            self._failed,
            metrics=Metrics(),
            leaves_at=self.line.playout.clock.latest_at,
        )
        self._step: tuple[float, float, list[VideoFrame]] | None = None
        patch.setattr(engine_stream, "time", SimpleNamespace(monotonic=lambda: self.line.now))
        self.line.every_ms = self._work

    def run(self, seconds: float, sound: Callable[[int], Pcm48] = tone) -> None:
        def feed(packet: int) -> Pcm48:
            pcm = sound(packet)
            self.stream.push(Chunk(pcm, PACKET * packet, None, self.line.now))
            return pcm

        self.line.run(seconds, sound=feed)

    def _work(self) -> None:
        """What the engine thread does in this millisecond."""
        if self._step is not None:
            began, done, frames = self._step
            if done > self.line.now:
                return
            self._step = None
            self.stream.finish(frames, began)
        if (step := self.stream.begin()) is not None:
            [frames] = self.engine.step_many([step])
            self.drawn += [f.index for f in frames if f.fresh]
            cost = sum(self.cost(f.index) if f.fresh else UNDRAWN_S for f in frames)
            self._step = (self.line.now, self.line.now + cost, frames)

    def _show(self, pictures: list[Picture]) -> None:
        for picture in pictures:
            self.line.playout.show(picture, self.line.now)

    def _failed(self, error: Exception) -> None:
        raise error
