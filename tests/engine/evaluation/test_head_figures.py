import numpy as np
import pytest

from engine.evaluation.head_figures import FPS, head_figures, smooth


def test_a_wave_has_the_range_and_the_speed_of_a_wave() -> None:
    time = np.arange(40 * FPS) / FPS
    track = np.zeros((len(time), 5), np.float32)
    track[:, 1] = 4 * np.sin(2 * np.pi * 0.5 * time)
    energy = np.clip(0.5 - 0.5 * np.sin(2 * np.pi * 0.5 * (time - 0.16)), 0, 1).astype(np.float32)
    figures = head_figures(track, energy)
    pitch = figures.moved["pitch"]
    assert pitch["std"] == pytest.approx(4 / np.sqrt(2), rel=0.02)
    assert pitch["range"] == pytest.approx(8 * np.sin(0.45 * np.pi), rel=0.02)
    assert pitch["speed"] == pytest.approx(4 * np.pi / np.sqrt(2), rel=0.03)
    assert figures.moved["yaw"] == dict.fromkeys(pitch, 0.0)
    assert figures.moving == pytest.approx(1 - 2 / np.pi * np.arcsin(5 / (4 * np.pi)), abs=0.03)
    assert figures.phrase == (pytest.approx(-1, abs=0.02), -4)  # the head is ahead of the voice


def test_noise_is_smoothed_away_and_motion_is_not() -> None:
    time = np.arange(200) / FPS
    wave = np.sin(2 * np.pi * time)[:, None].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1, wave.shape).astype(np.float32)
    assert np.abs(smooth(wave) - wave)[8:-8].max() < 0.05
    assert smooth(noise).std() < 0.6
