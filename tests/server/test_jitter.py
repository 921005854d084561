"""A microphone over uneven networks, in simulated time: receive buffer, time line and delay together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.sound.arrivals import LONGEST_DELAY_S
from server.sound.intake import EARLY, MAX_GAP, MISSED, PACKET_SAMPLES, SOUND_RATE_HZ, Pcm48
from tests.server.microphone_way import (
    DECODING_S,
    PACKET_S,
    TICK_S,
    Arrival,
    Delay,
    Heard,
    arrivals,
    listen,
    noise,
    tone,
    voice,
)

SECONDS = 24.0
VOICE = voice(SECONDS + 1)
SEEDS = range(3)
WITHIN_60_MS: dict[str, tuple[Delay, bool]] = {
    "even spread": (lambda rng: rng.uniform(0, 0.120), False),
    "even spread, in order": (lambda rng: rng.uniform(0, 0.120), True),
    "bell": (lambda rng: 0.060 + float(np.clip(rng.normal(0, 0.03), -0.06, 0.06)), False),
    "two ways": (lambda rng: 0.120 * (rng.random() < 0.3), False),
    "now and then": (lambda rng: 0.120 * (rng.random() < 0.03), False),
    "long tail": (lambda rng: min(0.120, float(rng.exponential(0.03))), False),
}


def delays_ms(heard: Heard, sent: Pcm48, begin: float, end: float, drift: float = 0) -> list[float]:
    """The delays that can be measured between these times, every 0.9 s."""
    measured = [heard.delay_s(sent, at, drift) for at in np.arange(begin, end, 0.9)]
    found = [1000 * delay for delay in measured if delay is not None]
    assert len(found) >= (end - begin) / 6, "too little was like what was sent"
    return found


def stalled(came: list[Arrival], at: float, seconds: float) -> list[Arrival]:
    """Nothing comes for so long, then all that was held up at once."""
    held = [(max(t, at + seconds + 1e-6 * n) if at <= t else t, n) for t, n in came]
    return sorted(held)


def most_step(pcm: Pcm48) -> int:
    return int(np.abs(np.diff(pcm.astype(np.int32))).max())


@pytest.mark.parametrize("spread_ms", [0, 1, 3])
def test_even_packets_are_returned_at_once_and_unchanged(spread_ms: int) -> None:
    came = arrivals(SECONDS - 2, lambda rng: min(0.012, float(rng.exponential(spread_ms / 1000))))
    heard = listen(came, VOICE, SECONDS)
    assert heard.at_once == len(came)
    assert heard.damaged == 0
    assert {target for _, target in heard.targets} == {0.0}
    begin = np.flatnonzero(heard.out)[0] - np.flatnonzero(VOICE)[0]
    spoken = len(came) * PACKET_SAMPLES
    np.testing.assert_array_equal(heard.out[begin : begin + spoken], VOICE[:spoken])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", WITHIN_60_MS)
def test_60_ms_of_jitter_either_way_damages_at_most_2_percent(name: str, seed: int) -> None:
    delay, in_order = WITHIN_60_MS[name]
    came = arrivals(SECONDS - 1, delay, in_order=in_order, seed=seed)
    heard = listen(came, VOICE, SECONDS)
    assert heard.damaged <= 0.02  # of it all, the first packets too
    assert heard.intake.target_delay_s > 0.08  # it was no easy way
    last, fed = heard.times[-1]
    assert abs(fed / SOUND_RATE_HZ / last - 1) <= 0.001
    assert max(delays_ms(heard, VOICE, 5, SECONDS - 2)) <= 135
    assert heard.intake.lost == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spread_ms", [30, 60])
def test_loss_and_jitter_cost_the_jitter_in_delay_and_the_lost_in_sound(
    seed: int, spread_ms: int
) -> None:
    """30 ms of jitter: from 0 to 30, or 30 either way."""
    came = arrivals(SECONDS - 2, lambda rng: rng.uniform(0, spread_ms / 1000), loss=0.03, seed=seed)
    heard = listen(came, VOICE, SECONDS)
    numbers = [number for _, number in came]
    missing = max(numbers) + 1 - len(numbers)
    assert missing > 20
    assert abs(heard.intake.lost - missing) <= 1  # one at the very end goes unnoticed
    assert heard.intake.concealed <= (missing + 0.005 * len(came)) * PACKET_SAMPLES
    assert heard.intake.discarded <= 0.01 * len(came) * PACKET_SAMPLES
    growth = np.array(delays_ms(heard, VOICE, 5, SECONDS - 3)) - 1000 * DECODING_S
    assert np.median(growth) <= 60
    assert growth.max() <= spread_ms + 20


def test_loss_alone_costs_no_delay() -> None:
    came = arrivals(SECONDS - 2, loss=0.03)
    heard = listen(came, VOICE, SECONDS)
    assert heard.intake.target_delay_s == 0
    assert heard.intake.stretched == heard.intake.late == 0
    assert max(delays_ms(heard, VOICE, 5, SECONDS - 3)) <= 1000 * DECODING_S + 1
    assert heard.at_once == len(came)


def test_a_packet_that_is_overtaken_by_the_next_is_not_lost() -> None:
    came = arrivals(SECONDS - 2)
    swapped = [(at + (0.027 if number % 50 == 7 else 0), number) for at, number in came]
    heard = listen(sorted(swapped), VOICE, SECONDS)
    assert heard.intake.lost == heard.intake.late == heard.intake.concealed == 0


@pytest.mark.parametrize(
    ("sound", "drift"), [(voice, -0.001), (voice, 0.001), (tone, 0.001), (noise, -0.001)]
)
def test_a_clock_that_is_fast_or_slow_is_kept_up_with_for_minutes_without_a_click(
    sound: Callable[[float], Pcm48], drift: float
) -> None:
    seconds = 90.0
    sent = sound(seconds + 1)
    heard = listen(arrivals(seconds - 1, drift=drift), sent, seconds)
    assert heard.intake.concealed == heard.intake.late == 0
    assert heard.intake.stretched >= 0.6 * abs(drift) * (seconds - 1) * SOUND_RATE_HZ
    assert heard.damaged <= 1.2 * abs(drift)
    behind = heard.behind_s()
    assert min(behind) >= -EARLY / SOUND_RATE_HZ - 1e-6
    assert max(behind) <= 0.045
    assert most_step(heard.out) <= 1.1 * most_step(sent)
    if sound is voice:
        assert max(delays_ms(heard, sent, 5, seconds - 2, drift)) <= 25


@pytest.mark.parametrize("drift", [-0.001, 0.001])
def test_drift_on_an_uneven_way_adds_nothing_to_the_delay_either(drift: float) -> None:
    seconds = 60.0
    sent = voice(seconds + 1)
    came = arrivals(seconds - 1, lambda rng: rng.uniform(0, 0.120), drift=drift)
    heard = listen(came, sent, seconds)
    assert heard.damaged <= 0.01
    late = delays_ms(heard, sent, seconds - 30, seconds - 2, drift)
    assert max(late) <= 145


def test_the_delay_goes_when_the_jitter_goes() -> None:
    seconds, rng = 32.0, np.random.default_rng(1)
    sent = voice(seconds + 1)
    came = sorted(
        (at + (rng.uniform(0, 0.12) if 4 < at < 9 else 0), n) for at, n in arrivals(seconds - 1)
    )
    heard = listen(came, sent, seconds)
    assert min(delays_ms(heard, sent, 6, 9)) > 80
    assert max(delays_ms(heard, sent, 26, seconds - 1)) <= 1000 * DECODING_S + 1
    # Packets and frames begin together again, so that a frame waits for no part of a packet.
    fed = [fed for when, fed in heard.times if when > 26]
    assert {count % PACKET_SAMPLES for count in fed} == {0}


def test_one_stall_is_no_reason_for_a_lasting_delay() -> None:
    heard = listen(stalled(arrivals(SECONDS - 1), 10, 0.3), VOICE, SECONDS)
    assert max(target for _, target in heard.targets) == 0
    assert heard.intake.late + heard.intake.concealed < 0.6 * SOUND_RATE_HZ
    assert max(delays_ms(heard, VOICE, 12, SECONDS - 2)) <= 1000 * DECODING_S + 1


def test_stalls_that_come_again_and_again_are_covered() -> None:
    came = arrivals(SECONDS - 1)
    for second in range(4, 23):
        came = stalled(came, second + 0.3, 0.1)
    heard = listen(came, VOICE, SECONDS)
    assert heard.damaged <= 0.03  # one in ten packets is late
    assert max(delays_ms(heard, VOICE, 10, 22)) <= 125


@pytest.mark.parametrize("longer_ms", [-400, -150, 150, 400])
def test_a_way_that_gets_longer_or_shorter_is_followed(longer_ms: int) -> None:
    seconds, extra = 32.0, abs(longer_ms) / 1000
    sent = voice(seconds + 1)
    came = sorted(
        (at + extra * ((at > 4) == (longer_ms > 0)), n) for at, n in arrivals(seconds - 1)
    )
    heard = listen(came, sent, seconds)
    true = 1000 * DECODING_S + max(longer_ms, 0)
    after = delays_ms(heard, sent, 25, seconds - 1.5)
    assert true - 1 <= min(after)
    assert max(after) <= true + 21
    assert heard.damaged <= 0.06  # 400 ms are missing to begin with, or too many


def test_after_a_pause_it_starts_at_the_present_and_knows_the_way() -> None:
    came = [
        (at, n)
        for at, n in arrivals(SECONDS - 1, lambda rng: rng.uniform(0, 0.12))
        if not 10 < at < 15
    ]
    heard = listen(came, VOICE, SECONDS)
    first = next(n for at, n in came if at > 15)
    before = heard.intake.late + heard.intake.concealed
    again = listen([(at, n) for at, n in came if at < 15], VOICE, SECONDS)
    assert before - again.intake.late - again.intake.concealed <= 4 * PACKET_SAMPLES
    assert first * PACKET_S > 13
    assert max(delays_ms(heard, VOICE, 16, SECONDS - 2)) <= 150


def test_more_sound_than_time_is_dropped() -> None:
    """Ten seconds in one: the line goes on with the clock and with what is newest."""
    came = [(1 + n / 500, n) for n in range(500)]
    heard = listen(came, VOICE, 4.0)
    assert -EARLY <= min(heard.behind_s()) * SOUND_RATE_HZ + 1
    assert heard.intake.late > 5 * SOUND_RATE_HZ
    quiet_from = np.flatnonzero(np.abs(heard.out) > 300)[-1] / SOUND_RATE_HZ
    assert quiet_from < 2 + MAX_GAP / SOUND_RATE_HZ + 0.1


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=150),
    st.lists(st.integers(0, 149), max_size=3),
)
def test_the_line_follows_the_clock_whatever_comes_when(
    packets: list[tuple[int, bool]], pauses: list[int]
) -> None:
    at, came = 1.0, []
    for number, (late_ms, lost) in enumerate(packets):
        at += 2.0 if number in pauses else PACKET_S
        if not lost:
            came.append((at + late_ms / 1000, number))
    if not came:
        return
    seconds = at + 1
    heard = listen(sorted(came), VOICE, seconds)
    behind = np.array(heard.behind_s()) * SOUND_RATE_HZ
    assert -EARLY - 1 <= behind.min()
    ticked = TICK_S * SOUND_RATE_HZ
    gaps = np.diff([when for when, _ in heard.times])
    assert gaps.max(initial=0) * SOUND_RATE_HZ <= MISSED + EARLY + PACKET_SAMPLES + 2 * ticked
    assert behind.max() <= PACKET_SAMPLES + MISSED + ticked
    assert heard.intake.target_delay_s <= LONGEST_DELAY_S
    assert len(heard.out) == heard.intake.fed
