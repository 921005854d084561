"""Overload lowers quality and never adds delay; it comes back, and does not swing."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
import pytest

from engine.types import Quality
from server.live.clips import Chunk
from server.live.quality import LADDER, LONGEST_S, Ladder
from server.live.worker import EngineWorker
from tests.server.fake_engine import FakeEngine
from tests.server.test_engine_stream import Bench, ramp

FRAME_S = 0.04


class Simulated:
    """Frames of sound arrive every 40 ms; each costs what its level costs times `load`."""

    def __init__(self, costs_ms: tuple[float, ...]) -> None:
        self.ladder = Ladder()
        self.costs = [cost / 1000 for cost in costs_ms]
        self.now = self.arrives = 0.0
        self.waiting: deque[float] = deque()
        self.levels: list[int] = []
        self.changes: list[float] = []
        self.longest_wait = 0.0

    def run(self, seconds: float, load: float = 1.0) -> None:
        end = self.now + seconds
        while self.now < end:
            while self.arrives <= self.now:
                self.waiting.append(self.arrives)
                self.arrives += FRAME_S
            if not self.waiting:
                self.now = self.arrives
                continue
            wait = self.now - self.waiting.popleft()
            self.longest_wait = max(self.longest_wait, wait)
            if self.ladder.watch(wait, self.now):
                self.changes.append(self.now)
            self.levels.append(self.ladder.level)
            self.now += self.costs[self.ladder.level] * load


def test_an_engine_that_keeps_up_is_left_alone() -> None:
    sim = Simulated((30, 25, 15, 8))
    sim.run(60)
    assert set(sim.levels) == {0}


def test_a_single_stall_changes_nothing() -> None:
    sim = Simulated((20, 18, 10, 5))
    sim.run(5)
    sim.now += 0.08  # something else took the engine for 80 ms
    sim.run(5)
    assert set(sim.levels) == {0}


@pytest.mark.parametrize(("load", "level"), [(1.5, 1), (2.0, 2), (4.0, 3)])
def test_the_first_step_that_fits_is_taken_before_sound_is_lost(load: float, level: int) -> None:
    sim = Simulated((30, 24, 15, 8))
    sim.run(10)
    sim.run(20, load)
    assert max(sim.levels) == level
    assert sim.longest_wait < 0.4  # where the queue would begin to drop sound
    late = sim.levels[-50:]
    assert sum(late) / len(late) > level - 0.5


def test_streams_of_one_engine_share_its_trouble() -> None:
    """One of two was held up as it began: it does not stay at the worst while the other has the best."""
    costs = [cost / 1000 for cost in (30, 25, 18, 16, 10, 8, 7)]
    ladders, now, levels = (Ladder(), Ladder()), 0.0, []
    waiting = [deque(FRAME_S * n for n in range(1500)) for _ in ladders]
    for count in range(6):
        ladders[1].watch(0.2 + 0.06 * count, now)
    assert ladders[1].level == len(LADDER) - 1
    while all(waiting):
        first = min((0, 1), key=lambda i: waiting[i][0])
        now = max(now, waiting[first][0])
        worst = max(ladder.level_at(now) for ladder in ladders)
        ladders[first].watch(now - waiting[first].popleft(), now, worst)
        now += costs[ladders[first].level]
        levels.append([ladder.level for ladder in ladders])
    found = np.array(levels[len(levels) // 4 :])
    assert np.abs(found[:, 0] - found[:, 1]).max() <= 2  # one, and one on the way
    assert 1.5 < found.mean() < 3.2  # 18 ms fit into the 20 of each
    assert abs(found[:, 0].mean() - found[:, 1].mean()) <= 1


def test_a_stream_that_pauses_counts_for_no_other() -> None:
    ladder, other = Ladder(), Ladder()
    ladder.watch(0.3, 10.0)
    assert ladder.level_at(10.5) == 1
    assert ladder.level_at(12.0) == 0
    assert not other.watch(0.0, 12.0, ladder.level_at(12.0))


def test_the_worst_off_goes_up_first() -> None:
    ladder = Ladder()
    assert ladder.watch(0.0, 0.0, worst=3)
    assert ladder.level == 2
    changed = [ladder.watch(0.0, 0.1 * n, worst=3) for n in range(1, 100)]
    assert not any(changed)
    assert any(ladder.watch(0.0, 10 + 0.1 * n, worst=2) for n in range(1, 100))


def test_quality_returns_when_the_load_is_gone() -> None:
    sim = Simulated((30, 24, 15, 8))
    sim.run(10, 4.0)
    assert sim.ladder.level == 3
    sim.run(120)
    assert sim.ladder.level == 0


def test_a_machine_that_is_too_slow_tries_ever_less_often() -> None:
    sim = Simulated((50, 45, 15, 8))
    sim.run(600)
    early = sum(change < 60 for change in sim.changes)
    late = sum(change > 540 for change in sim.changes)
    assert late <= 4 < early
    assert sim.longest_wait < 0.4
    assert np.diff(sim.changes).max() <= LONGEST_S + 10  # it still tries


def test_the_steps_lower_the_painting_first_then_the_size_and_then_the_frame_rate() -> None:
    assert LADDER[0] == Quality()
    assert LADDER[1] == Quality(paint_every=5)
    assert LADDER[2] == Quality(paint_every=5, half=True)
    draws = [quality.draw_every for quality in LADDER]
    assert draws == sorted(draws)
    paints = [quality.paint_every for quality in LADDER]
    assert paints == sorted(paints)
    assert all(quality.half for quality in LADDER[2:])


def test_a_slow_engine_shows_fewer_pictures_and_loses_no_sound() -> None:
    """A frame takes 60 ms; 3 s of sound come in real time."""
    bench = Bench(FakeEngine(step_seconds=0.06, side=64))
    worker = EngineWorker(bench.engine)
    worker.start()
    worker.attach(bench.stream)
    began = time.monotonic()
    for i in range(150):
        time.sleep(max(0.0, began + 0.02 * i - time.monotonic()))
        bench.stream.push(Chunk(ramp(i * 960, 960), i * 960, None, time.monotonic()))
        worker.wake()
    time.sleep(0.3)
    worker.stop()
    assert bench.stream.dropped_s == 0
    assert len(bench.pictures) == 150 // 2 - 2
    assert [picture.place for picture in bench.pictures] == [1920 * i for i in range(73)]
    fresh = [picture.fresh for picture in bench.pictures[-25:]]
    assert 2 <= sum(fresh) <= 13  # every second picture is drawn, every fourth or eighth
    assert max(picture.queued_s for picture in bench.pictures[-25:]) < 0.1
    made = [
        bench.metrics.registry.get_sample_value("portraittalk_frames_made_total", {"quality": q})
        for q in "012345"
    ]
    assert sum(n or 0 for n in made) == len(bench.pictures)
    assert sum(n or 0 for n in made[2:]) > 25
