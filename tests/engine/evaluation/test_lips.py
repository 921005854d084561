"""The arithmetic of the lip figures."""

from __future__ import annotations

import numpy as np
import pytest

from engine.evaluation.lip_figures import (
    Said,
    agreement,
    best_lag,
    correlation_at,
    log_energy,
    meeting_offset,
    rule_coefficients,
    span_minima,
)
from engine.training.speech.phones import Phone


@pytest.fixture
def wave() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.convolve(rng.standard_normal(400), np.ones(4) / 4, "same").astype(np.float32)


@pytest.mark.parametrize("lag", [-5, 0, 3])
def test_a_shift_is_found_with_its_sign(wave: np.ndarray, lag: int) -> None:
    found, r = best_lag(wave, np.roll(wave, lag))
    assert found == lag
    assert r > 0.95


def test_tracks_of_different_length_are_compared_where_both_are(wave: np.ndarray) -> None:
    assert correlation_at(wave, wave[:300], 0) == pytest.approx(1)
    assert correlation_at(wave, np.roll(wave, 2)[:300], 2) == pytest.approx(1)
    assert correlation_at(wave, np.zeros_like(wave), 0) == 0


def test_the_smallest_gap_is_looked_for_within_a_frame_of_p_b_m_only() -> None:
    gap = np.full(50, 0.05, np.float32)
    gap[10], gap[30] = 0.001, 0.002
    phones = [Phone("P", 0.44, 0.48), Phone("AA", 1.2, 1.24), Phone("M", 0.8, 0.9)]
    assert span_minima(gap, phones) == pytest.approx([0.001, 0.05])  # frame 11 +- 1; 20-22 +- 1
    assert span_minima(gap, [Phone("B", 0.48, 0.52)]) == pytest.approx([0.05])  # 12 +- 1
    assert span_minima(gap, [Phone("B", 9.0, 9.1)]) == []


@pytest.mark.parametrize("offset", [-6, 0, 2.5])
def test_lips_that_meet_on_p_b_m_tell_how_late_they_are(offset: float) -> None:
    rng = np.random.default_rng(1)
    middles = np.sort(rng.uniform(1, 19, 24))
    time = (np.arange(500) + 0.5) / 25 - offset / 25
    near = np.abs(time[:, None] - middles).min(1)
    gap = np.clip(near / 0.12, 0, 1) * rng.uniform(0.03, 0.08, 500)
    phones = [Phone("B", m - 0.04, m + 0.04) for m in middles] + [Phone("AA", 0.2, 0.4)]
    assert meeting_offset(gap.astype(np.float32), phones) == pytest.approx(offset, abs=0.3)
    with pytest.raises(ValueError, match="no p, b or m"):
        meeting_offset(gap, phones[-1:])


def test_lips_are_compared_where_the_talkers_lips_are_at_their_sound(wave: np.ndarray) -> None:
    own = np.stack([0.05 + 0.02 * wave, 0.6 + 0.05 * wave[::-1]], 1)
    late = np.roll(own, 7, axis=0) * 0.5  # the film's sound is 6 frames late, these lips 1 more
    report = agreement(own, late, -6)
    assert report["gap late by frames"] == report["width late by frames"] == 1
    assert report["r gap at its best lag"] > 0.95 > report["r gap"]
    assert report["spread of width, of his own"] == 0.5
    own[:250, 0] = 0.001
    assert agreement(own, late, -6)["closed frames, his"] > 0.6


def test_energy_is_counted_by_frames_of_640_samples() -> None:
    pcm = np.zeros(640 * 3 + 100, np.float32)
    pcm[640:1280] = 0.5
    energy = log_energy(pcm)
    assert energy.shape == (3,)
    assert energy[1] - energy[0] == pytest.approx(np.log(0.501 / 0.001), abs=1e-3)


def test_the_rules_open_on_a_vowel_and_press_on_p() -> None:
    from engine.face import arkit

    phones = [
        Phone("sil", 0, 0.2),
        Phone("AA", 0.2, 0.5),
        Phone("P", 0.5, 0.6),
        Phone("AA", 0.6, 1),
    ]
    pcm = np.full(16_000, 0.1, np.float32)
    track = rule_coefficients(Said("v", pcm, phones))
    assert track.shape == (25, arkit.COUNT)
    jaw, press = (track[:, arkit.index(n)] for n in ("jawOpen", "mouthPressLeft"))
    assert jaw[8] > 0.2 > 0.1 > jaw[13]
    assert press[13] > 0.07 > press[8]
