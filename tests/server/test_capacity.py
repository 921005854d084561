"""How many viewers a machine is thought to carry, and what it learns while it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server import capacity
from server.capacity import BUSIEST, FPS, Capacity, FrameCost, measure, processors
from tests.server.fake_engine import FakeEngine

CHEAP = FrameCost(engine_s=0.005, full_s=0.008, engine_cpu_s=0.008, encode_s=0.003)
DEAR = FrameCost(engine_s=0.03, full_s=0.04, engine_cpu_s=0.05, encode_s=0.01)


@pytest.mark.parametrize("cores", [1.0, 1.2, 2.0, 8.0])
@pytest.mark.parametrize("cost", [CHEAP, DEAR])
def test_the_places_fit_the_thread_and_the_processors(cost: FrameCost, cores: float) -> None:
    places = cost.places(cores)
    cpu_s = cost.engine_cpu_s + cost.encode_s + capacity.NETWORK_S
    fits = places * FPS * cost.engine_s <= BUSIEST and places * FPS * cpu_s <= BUSIEST * cores
    assert places == 1 or fits
    more = (places + 1) * FPS
    assert more * cost.engine_s > BUSIEST or more * cpu_s > BUSIEST * cores


@pytest.mark.parametrize("cores", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("live", [1, 3])
def test_who_only_watches_costs_no_engine_and_takes_from_the_places(
    cores: float, live: int
) -> None:
    watch_s = CHEAP.encode_s + capacity.NETWORK_S
    left_s = BUSIEST * cores / FPS - live * (CHEAP.engine_cpu_s + watch_s)
    most = CHEAP.watchers(cores, live)
    assert most * watch_s <= max(left_s, 0) < (most + 1) * watch_s
    assert CHEAP.watchers(cores, live, slower=2) <= most / 2
    assert CHEAP.places(cores, watchers=most) <= max(live, 1)


def test_the_operators_limit_of_watchers_holds() -> None:
    known = Capacity(most=100)
    assert known.watchers(live=1, most=7) == 7  # not measured yet
    known.measured(CHEAP)
    assert known.watchers(live=1, most=1) == 1
    assert 0 < known.watchers(live=1, most=10**6) < 10**6
    before = known.places
    known.watching = 10
    assert known.places < before


def test_streams_that_share_steps_count_where_enough_of_them_fit() -> None:
    """A step of one takes 30 ms, of four 40: one fits alone, four together."""
    alone = FrameCost(engine_s=0.03, full_s=0.03, engine_cpu_s=0.03, encode_s=0.003)
    assert alone.places(8.0) == 1
    four = replace(alone, together=((4, 0.01, 0.01),))
    assert four.places(8.0) == int(BUSIEST / (FPS * 0.01)) == 4
    assert four.places(8.0, slower=1.2) == 1, "three would not fill the step that four need"
    assert replace(alone, together=((8, 0.01, 0.01),)).places(8.0) == 1


def test_steps_of_many_are_measured_where_the_profile_shares_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capacity, "FPS", 0.5)  # however busy this machine is
    portrait = np.full((96, 96, 3), (200, 150, 90), np.uint8)
    for profile, sizes in (("sd15", {1, 2, 4}), ("tiny", {1})):
        engine = FakeEngine(side=64, step_seconds=0.004)
        engine.config = replace(engine.config, profile=profile, batch=4)
        cost = measure(engine, engine.enroll(portrait))
        assert set(engine.batches) == sizes
        assert [count for count, _, _ in cost.together] == sorted(sizes - {1})


def test_one_viewer_is_always_served() -> None:
    assert DEAR.places(0.5, slower=10) == 1


def test_a_limit_of_the_operator_holds() -> None:
    few = Capacity(most=2)
    assert few.places == 2  # not measured yet
    few.measured(CHEAP)
    assert CHEAP.places(processors()) > 2
    assert few.places == 2
    fixed = Capacity(most=50, fixed=9)
    fixed.measured(DEAR)
    assert fixed.places == 9


def test_a_machine_that_has_become_slower_offers_fewer_places_and_recovers() -> None:
    known = Capacity(most=100)
    known.measured(CHEAP)
    at_start = known.places
    now, busy, frames = 0.0, 0.0, 0
    known.look(now, [busy], frames)
    for factor, goes in ((3.0, "down"), (1.0, "up")):
        for _ in range(6):
            now, frames = now + 6, frames + 150
            busy += 150 * CHEAP.full_s * factor
            known.look(now, [busy], frames)
        assert (known.places < at_start) == (goes == "down")
    assert known.places == at_start


def test_a_moment_without_frames_teaches_nothing() -> None:
    known = Capacity(most=100)
    known.measured(CHEAP)
    before = known.places
    known.look(0.0, [0.0], 0)
    known.look(100.0, [99.0], 3)
    assert known.places == before


@pytest.mark.parametrize("gain", [1.0, 1.3, 2.0])
def test_engine_threads_count_by_what_they_gain_together(gain: float) -> None:
    """Each holds 10 ms of a thread and of a processor; on siblings of one core two hold it for longer."""
    alone = FrameCost(engine_s=0.01, full_s=0.01, engine_cpu_s=0.001, encode_s=0.001)
    pair = replace(alone, side=2, gain=gain)
    assert pair.places(8.0) == int(gain * BUSIEST / (FPS * 0.01))
    siblings = replace(pair, engine_cpu_s=2 * 0.01 / gain)
    assert siblings.places(2.0) <= 2.0 * BUSIEST / (FPS * siblings.engine_cpu_s)


@pytest.mark.parametrize("gain", [1.0, 1.5, 2.0])
def test_what_threads_slow_each_other_down_is_no_slower_machine(gain: float) -> None:
    """Two streams, each frame of which takes 2 / gain as long while both threads work."""
    known = Capacity(most=100)
    known.measured(replace(CHEAP, side=2, gain=gain))
    at_start = known.places
    frames = 400
    known.look(0.0, [0.0, 0.0], 0)
    for turn in range(1, 7):
        both_s = CHEAP.full_s / gain  # for each frame of the two streams
        known.look(6.0 * turn, [0.0, turn * frames * both_s], turn * frames)
    assert known.places == at_start
    known.look(60.0, [0.0, 7 * 3 * frames * CHEAP.full_s], 7 * frames)
    assert known.places < at_start


def test_engine_threads_are_measured_side_by_side() -> None:
    """The fake engine sleeps while it draws, so two threads make twice the frames of one."""
    engine = FakeEngine(side=64, step_seconds=0.01, threads=2)
    cost = measure(engine, engine.enroll(np.full((96, 96, 3), (200, 150, 90), np.uint8)))
    assert cost.side == 2
    assert 1.4 < cost.gain <= 2.0
    assert cost.places(64) > replace(cost, gain=1.0).places(64)


def test_the_measurement_sees_what_a_frame_takes() -> None:
    engine = FakeEngine(side=128, step_seconds=0.01)
    cost = measure(engine, engine.enroll(np.full((96, 96, 3), (200, 150, 90), np.uint8)))
    assert 0.010 <= cost.engine_s < 0.1
    assert 0 < cost.encode_s < 0.1


def test_an_engine_that_takes_seconds_is_not_measured_for_long() -> None:
    engine = FakeEngine(side=64, step_seconds=1.1)
    cost = measure(engine, engine.enroll(np.full((96, 96, 3), (200, 150, 90), np.uint8)))
    assert cost.engine_s > 0.3
    assert engine.batches.count(1) <= 8
    assert cost.places(64) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_of_the_control_group_counts(
    version: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capacity, "_CGROUP", tmp_path)
    free = processors()
    (tmp_path / "cpu").mkdir()
    for quota, left in (("none", free), (50_000, 0.5), (10**9, free)):
        if version == 2:
            (tmp_path / "cpu.max").write_text(f"{'max' if quota == 'none' else quota} 100000\n")
        else:
            (tmp_path / "cpu/cpu.cfs_quota_us").write_text(
                f"{'-1' if quota == 'none' else quota}\n"
            )
            (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
        assert processors() == min(free, left)
