"""A stream that the engine cannot keep up with: pictures get fewer, the sound stays whole.

The real queue before the engine and the real way out, on a clock of their own; the engine takes
so much of it for each picture that it draws.
"""

from __future__ import annotations

import numpy as np
import pytest

from server.live.clock import PACKET_S
from tests.server.simulated import FRAME_S, PACKET, Line, SimulatedEngine, check_sound, silence


def in_step(line: Line) -> None:
    """19 of 20 pictures leave within 80 ms of their sound, none far from it."""
    gaps = np.abs(line.gaps())
    assert np.percentile(gaps, 95) <= 0.08
    assert gaps.max() <= 0.3


@pytest.mark.parametrize("load", [0.5, 1.2, 2.0, 3.0, 5.0])
def test_an_engine_that_is_too_slow_costs_pictures_and_no_sound(
    monkeypatch: pytest.MonkeyPatch, load: float
) -> None:
    overloaded = SimulatedEngine(monkeypatch, lambda frame: load * FRAME_S)
    overloaded.run(12.0)
    line = overloaded.line
    check_sound(line)
    in_step(line)
    assert overloaded.stream.dropped_s == 0
    shown = [p.at for p in line.pictures if p.at > 2.0]
    assert len(shown) / 10 >= min(24.5, 0.45 * 25 / load)
    assert np.diff(shown).max() <= 1.0


def test_the_delay_comes_down_again_after_the_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"s": 0.02}
    overloaded = SimulatedEngine(monkeypatch, lambda frame: costs["s"])
    line = overloaded.line
    overloaded.run(3.0)
    before = line.delays[-1]
    costs["s"] = 0.075
    overloaded.run(4.0)
    assert line.delays[-1] > before + 0.03
    costs["s"] = 0.02
    overloaded.run(6.0)
    check_sound(line)
    in_step(line)
    assert line.delays[-1] == pytest.approx(before, abs=0.01)


@pytest.mark.parametrize("every", [50, 111])
def test_hiccups_of_the_engine_are_not_heard(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    overloaded = SimulatedEngine(
        monkeypatch, lambda frame: 0.3 if frame % every == every // 2 else 0.02
    )
    overloaded.run(15.0)
    check_sound(overloaded.line)
    in_step(overloaded.line)
    shown = [p.at for p in overloaded.line.pictures]
    assert np.diff(shown).max() <= 1.0
    assert len(shown) >= 15 * 25 * (1 - 18 / every)  # a standstill and what it left behind


def test_an_overload_in_silence_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    overloaded = SimulatedEngine(monkeypatch, lambda frame: 0.06)
    line = overloaded.line
    overloaded.run(6.0, silence)
    gaps = np.diff([sound.at for sound in line.sounds])
    assert np.abs(gaps - PACKET_S).max() <= 0.08 * PACKET_S + 0.001
    in_step(line)


def test_an_interruption_under_overload_is_seen_at_rest_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overloaded = SimulatedEngine(monkeypatch, lambda frame: 0.045)
    line = overloaded.line
    overloaded.run(3.0)
    seen, heard = len(line.pictures), len(line.heard)
    overloaded.stream.interrupt(PACKET * len(line.delays))
    line.playout.interrupt()
    overloaded.run(1.0, silence)
    assert not np.concatenate(line.heard[heard + 1 :]).any()
    first = line.pictures[seen]
    assert first.place is None  # nothing of what was cut off came out before it
    assert first.at - 3.0 <= 0.2
