"""Sound made shorter and longer, and where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.sound.intake import Pcm48
from server.sound.stretch import FADE, LONGEST, SHORTEST, Stretcher, best_period, lengthen, shorten
from tests.server.microphone_way import noise, tone, voice

PACKET = 960


def hum(hz: float, samples: int = PACKET) -> Pcm48:
    return np.asarray(9000 * np.sin(2 * np.pi * hz * np.arange(samples) / 48_000), np.int16)


def most_step(pcm: Pcm48) -> int:
    return int(np.abs(np.diff(pcm.astype(np.int32))).max())


@pytest.mark.parametrize("hz", [80, 110, 220, 390])
@pytest.mark.parametrize("change", [shorten, lengthen])
def test_a_period_more_or_less_of_a_hum_is_the_same_hum(hz: float, change: object) -> None:
    pcm = hum(hz)
    period = best_period(pcm, LONGEST)
    assert period is not None
    assert period.likeness > 0.99
    turns = period.samples * hz / 48_000
    assert turns == pytest.approx(round(turns), abs=0.02)
    changed = change(pcm, period.samples)  # type: ignore[operator]
    assert abs(len(changed) - len(pcm)) == period.samples
    np.testing.assert_allclose(changed, hum(hz, len(changed)), atol=0.15 * 9000)
    assert changed[0] == pcm[0]
    assert changed[-1] == pcm[-1]


@given(st.integers(0, LONGEST), st.integers(0, 9))
def test_any_length_leaves_the_ends_alone_and_makes_no_click(samples: int, seed: int) -> None:
    pcm = voice(1.0, seed)[20_000 : 20_000 + PACKET]
    for changed, length in (
        (shorten(pcm, samples), PACKET - samples),
        (lengthen(pcm, samples), PACKET + samples),
    ):
        assert changed.dtype == np.int16
        assert len(changed) == length
        assert changed[0] == pcm[0]
        assert changed[-1] == pcm[-1]
        assert most_step(changed) <= most_step(pcm) + 2 * np.abs(pcm.astype(int)).max() / FADE + 2


def test_too_short_a_piece_has_no_period() -> None:
    assert best_period(hum(200, FADE + SHORTEST - 1), LONGEST) is None
    assert best_period(hum(200), SHORTEST - 1) is None


@pytest.mark.parametrize("excess", [-100, 100, 700])
def test_silence_takes_any_length_at_once(excess: int) -> None:
    stretcher = Stretcher()
    quiet = np.zeros(PACKET, np.int16)
    assert len(stretcher.adjust(quiet, excess, at_once=False)) == PACKET - excess
    assert (stretcher.shortened, stretcher.lengthened) == (max(excess, 0), max(-excess, 0))


def test_a_voice_is_left_alone_until_it_matters_and_then_changed_now_and_then() -> None:
    sound = hum(200, 100 * PACKET) + np.repeat([0, 1], 50 * PACKET).astype(np.int16)

    def lengths(excess: int) -> list[int]:
        stretcher = Stretcher()
        pieces = np.split(sound, 100)
        return [len(stretcher.adjust(piece, excess, at_once=False)) for piece in pieces]

    assert set(lengths(1000)) == {PACKET}
    assert 12 <= sum(length < PACKET for length in lengths(2000)) <= 20
    assert sum(lengths(2000)) >= 0.9 * len(sound)


def test_a_voice_that_must_wait_is_made_longer_at_once() -> None:
    stretcher = Stretcher()
    assert all(len(stretcher.adjust(hum(200), -800, at_once=True)) > PACKET for _ in range(5))


@pytest.mark.parametrize(("sound", "after"), [(noise, 150), (tone, 150)])
def test_sound_that_never_stops_is_changed_when_that_is_known(sound: object, after: int) -> None:
    pcm: Pcm48 = sound(4.0)  # type: ignore[operator]
    stretcher = Stretcher()
    changed = [
        len(stretcher.adjust(piece, 900, at_once=False)) < PACKET
        for piece in np.split(pcm, len(pcm) // PACKET)
    ]
    assert not any(changed[: after - 1])
    assert any(changed[after : after + 5])


@given(st.integers(1, 300), st.integers(-3000, 3000))
def test_short_packets_are_never_made_shorter_than_they_can_be(length: int, excess: int) -> None:
    for pcm in (np.zeros(length, np.int16), hum(200, length)):
        out = Stretcher().adjust(pcm, excess, at_once=True)
        assert len(out) >= min(length, FADE)
        assert abs(len(out) - length) <= max(0, length - FADE)
