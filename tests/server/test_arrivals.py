"""How late packets come, and the delay that this asks for."""

from __future__ import annotations

import numpy as np
import pytest

from server.sound.arrivals import EVEN_S, LONGEST_DELAY_S, SHRINK_S, WINDOW, Arrivals

PACKET_S = 0.020


def heard(arrivals: Arrivals, lateness: list[float], number: int = 0, way_s: float = 5.0) -> int:
    """Add packets that come so much later than the quickest; return the number of the next."""
    for late in lateness:
        arrivals.add(number * 960, way_s + number * PACKET_S + late)
        number += 1
    return number


def test_even_packets_ask_for_no_delay_and_tell_when_the_next_one_comes() -> None:
    arrivals = Arrivals()
    with pytest.raises(ValueError, match="no packet"):
        arrivals.earliest(0)
    number = heard(arrivals, [0.003, 0, 0.002, 0.001] * 100)
    assert arrivals.delay_s == 0
    assert arrivals.earliest(number * 960) == pytest.approx(5 + number * PACKET_S)


@pytest.mark.parametrize("most_s", [0.030, 0.060, 0.120])
def test_the_delay_covers_almost_all_of_them(most_s: float) -> None:
    lateness = np.random.default_rng(0).uniform(0, most_s, WINDOW)
    arrivals = Arrivals()
    heard(arrivals, lateness.tolist())
    assert 0.9 * most_s <= arrivals.delay_s <= most_s
    assert np.mean(lateness > arrivals.delay_s) <= 0.02


def test_it_grows_within_a_few_late_packets_and_goes_slowly() -> None:
    arrivals = Arrivals()
    number = heard(arrivals, [0.0] * WINDOW)
    number = heard(arrivals, [0.080, 0.0] * 8, number)
    assert arrivals.delay_s == pytest.approx(0.080)
    number = heard(arrivals, [0.0] * WINDOW, number)
    assert 0.07 < arrivals.delay_s < 0.08
    number = heard(arrivals, [0.0] * 50, number)
    assert 0.06 < arrivals.delay_s < 0.07  # 15 ms a second
    heard(arrivals, [0.0] * 250, number)
    assert arrivals.delay_s == 0


def test_a_stall_counts_once_however_many_packets_it_held_up() -> None:
    arrivals = Arrivals()
    number = heard(arrivals, [0.0] * WINDOW)
    heard(arrivals, [0.3 - i * PACKET_S for i in range(15)] + [0.0] * 20, number)
    assert arrivals.delay_s == 0


def test_it_is_bounded() -> None:
    arrivals = Arrivals()
    heard(arrivals, [0.0, 2.0] * 100)
    assert arrivals.delay_s == LONGEST_DELAY_S


def test_a_longer_way_is_no_delay_once_nothing_else_is_remembered() -> None:
    arrivals = Arrivals()
    number = heard(arrivals, [0.0] * WINDOW)
    number = heard(arrivals, [0.150] * (WINDOW - 1), number)
    assert arrivals.delay_s == pytest.approx(0.150)
    heard(arrivals, [0.150] * 2, number)
    assert arrivals.delay_s == pytest.approx(0, abs=1e-6)
    assert arrivals.earliest(0) == pytest.approx(5.150)


def test_after_a_restart_the_way_is_known_but_not_the_time_stamps() -> None:
    arrivals = Arrivals()
    heard(arrivals, np.random.default_rng(0).uniform(0, 0.1, WINDOW).tolist())
    known = arrivals.delay_s
    arrivals.restart()
    heard(arrivals, [0.0], way_s=700.0)
    assert arrivals.delay_s == pytest.approx(known, abs=0.002)
    assert arrivals.earliest(0) == 700.0
    arrivals.forget()
    heard(arrivals, [0.0] * WINDOW, way_s=800.0)
    assert arrivals.delay_s == pytest.approx(known, abs=0.002 + WINDOW * SHRINK_S)


@pytest.mark.parametrize("delay_s", [0.0, 0.100])
def test_a_missing_packet_is_waited_for_as_long_as_the_delay_allows(delay_s: float) -> None:
    arrivals = Arrivals()
    assert arrivals.missed_at(0, 3.0) == pytest.approx(3.010)
    number = heard(arrivals, [0.0, delay_s] * 100)
    due = 5 + number * PACKET_S + delay_s  # of the missing one
    behind = (number + 1) * 960
    came = 5 + (number + 1) * PACKET_S + EVEN_S / 4
    assert due <= arrivals.missed_at(behind, came) <= due + 0.031
