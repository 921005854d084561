"""The simulation of sessions on workers, against cases that can be worked out."""

import numpy as np
import pytest

from benchmarks import capacity
from benchmarks.capacity import FRAME_S, Stay, p99_ms, simulate, stays, waits

RNG = np.random.default_rng


def test_a_session_alone_waits_for_its_step_and_nothing_else() -> None:
    waited = waits([Stay(0, 0.0, 2.0)], {1: [0.03]}, FRAME_S, RNG(0))
    assert len(waited) == 50
    assert waited == pytest.approx([0.03] * 50)


def test_who_comes_during_a_step_waits_for_its_end_and_is_taken_with_the_others() -> None:
    """A step of one takes 20 ms, of two 30. The second session comes 5 ms after the first.

    It waits 15 ms and 20 for itself; the first one's next frame, 40 ms on, is alone again.
    """
    own = [Stay(0, 0.0, 0.08), Stay(0, 0.005, 0.085)]
    waited = waits(own, {1: [0.02], 2: [0.03]}, FRAME_S, RNG(0))
    assert sorted(waited) == pytest.approx([0.02, 0.02, 0.035, 0.035])
    together = [Stay(0, 0.0, 0.04), Stay(0, 0.0, 0.04)]
    assert waits(together, {1: [0.02], 2: [0.03]}, FRAME_S, RNG(0)) == pytest.approx([0.03, 0.03])


def test_a_worker_that_is_too_slow_falls_ever_further_behind() -> None:
    waited = waits([Stay(0, 0.0, 4.0)], {1: [0.05]}, FRAME_S, RNG(0))
    assert waited[-1] == pytest.approx(0.05 + 99 * 0.01)


def test_there_are_always_so_many_sessions_on_all_workers_alike() -> None:
    placed = stays(4, 10, 300.0, RNG(0))
    assert len(placed) > 10, "some leave, others come"
    for at in (1.0, 100.0, 299.0):
        held = [sum(s.worker == w and s.begin <= at < s.end for s in placed) for w in range(4)]
        assert sum(held) == 10
    assert p99_ms(4, 10, {1: [0.001]}, FRAME_S, 20.0) < 10


def test_more_workers_carry_more_and_the_limit_is_that_of_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capacity, "WORKERS", (1, 4, 16))
    rows = simulate({1: [0.01], 2: [0.012], 4: [0.016], 8: [0.02]}, FRAME_S, 3.0)
    carried = {row["workers"]: row["sessions"] for row in rows}
    assert 8 <= carried[1] <= 16, "8 streams every 20 ms are 16 sessions at the very most"
    assert carried[16] >= 12 * carried[1]
    for row in rows:
        assert row["p99_ms"][0][1] < 20, "hardly anybody is there"
        assert row["p99_ms"][-1][1] > 120, "a tenth more than can be drawn"
