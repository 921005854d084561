"""Heads that speak, driven by the energy of seven sentences of LJSpeech as the engine hears them."""

from pathlib import Path

import numpy as np
import pytest

from engine.evaluation.head_figures import head_figures
from engine.motion.head import VOICED
from engine.motion.idle import FPS, IdleLife

# A filmed speaker as the public landmarker reads him, degrees (`python -m engine.evaluation.head`).
FILMED = {
    "yaw": {"std": 2.4, "range": 8.0, "speed": 10.7, "speed p95": 24.1},
    "pitch": {"std": 4.5, "range": 13.5, "speed": 12.0, "speed p95": 26.1},
    "roll": {"std": 4.1, "range": 12.7, "speed": 4.4, "speed p95": 9.8},
}
# What calm heads were before they had a choice, frames 0, 99 and 777 of seed 7.
CALM = np.array(
    [
        [1.2828580e-02, 7.2619589e-03, -2.8211733e-03, 5.0709788e-03, -1.0071557e-02, 1.0000563],
        [6.2856530e-03, -5.6176372e-03, -1.7801698e-02, -4.3403376e-03, 4.2690645e-04, 0.99301887],
        [4.4697754e-02, 2.1217315e-02, -2.8466743e-03, 1.3743269e-03, 5.1825121e-03, 1.0049798],
    ],
    np.float32,
)


@pytest.fixture(scope="module")
def energy() -> np.ndarray:
    saved = np.load(Path(__file__).with_name("spoken_energy.npy"))
    return (saved / 255).astype(np.float32)


def pose(energy: np.ndarray, seed: int, *, calm: bool = False) -> np.ndarray:
    life = IdleLife(seed, calm=calm)
    return life.step(life.start(), len(energy), energy)[0]


def track(pose: np.ndarray) -> np.ndarray:
    return np.concatenate([np.degrees(pose[:, :3]), 100 * pose[:, 3:5]], 1)


def test_heads_move_as_far_and_as_fast_as_filmed_ones(energy: np.ndarray) -> None:
    figures = [head_figures(track(pose(energy, seed)), energy) for seed in range(8)]
    for axis, filmed in FILMED.items():
        for name, wanted in filmed.items():
            ours = float(np.mean([f.moved[axis][name] for f in figures]))
            assert 0.7 <= ours / wanted <= 1.4, (axis, name, ours)
    assert 0.7 * 0.84 <= np.mean([f.moving for f in figures]) <= 1.0
    r, lag = np.mean([f.phrase for f in figures], 0)  # held high in a phrase, sinking in a pause
    assert r < -0.4
    assert lag < 12


def test_every_seed_is_within_what_the_picture_bears(energy: np.ndarray) -> None:
    shouting = np.tile(np.repeat([1.0, 0.0, 0.6, 0.1], [9, 14, 3, 6]), 80).astype(np.float32)
    for seed in range(6):
        for spoken in (energy, shouting):
            moved = pose(spoken, seed)
            assert np.degrees(np.abs(moved[:, :3]).max(0)) == pytest.approx(0, abs=14.5)
            assert np.abs(moved[:, 3:5]).max() < 0.18
            assert np.abs(moved[:, 5] - 1).max() < 0.03


def test_a_head_never_jumps_not_even_when_speech_is_cut_off(energy: np.ndarray) -> None:
    for seed, cut in enumerate((101, 230, 404, 800)):
        spoken = energy.copy()
        spoken[cut : cut + 60] = 0
        turned = np.degrees(pose(spoken, seed)[:, :3])
        assert np.abs(np.diff(turned, axis=0)).max() < 4.8
        assert np.abs(np.diff(turned, 2, axis=0)).max() < 3.0  # nor starts or stops with a jerk
        apart = turned - np.degrees(pose(energy, seed)[:, :3])
        assert np.abs(apart[cut : cut + 3]).max() < 2  # it goes on as it was going


def test_in_silence_a_head_is_as_calm_as_a_calm_one() -> None:
    quiet = np.full(20 * FPS, VOICED / 2, np.float32)
    moved, calm = pose(quiet, 4), pose(quiet, 4, calm=True)
    assert np.abs(np.diff(np.degrees(moved[:, :3]), axis=0)).max() * FPS < 8  # degrees a second
    quiet[:] = 0
    np.testing.assert_allclose(pose(quiet, 4), pose(quiet, 4, calm=True), atol=1e-6)
    assert np.abs(moved - calm).max() < 0.08


def test_it_comes_home_when_nobody_speaks(energy: np.ndarray) -> None:
    spoken = np.concatenate([energy[:300], np.zeros(5 * FPS, np.float32)])
    apart = pose(spoken, 1)[-1] - pose(spoken, 1, calm=True)[-1]
    assert np.degrees(np.abs(apart[:3])).max() < 0.3


def test_stressed_syllables_make_it_nod() -> None:
    even = np.full(150, 0.35, np.float32)
    stressed = even.copy()
    stressed[100:104] = 0.9
    nods = [pose(stressed, seed)[:, 1] - pose(even, seed)[:, 1] for seed in range(40)]
    nod = np.degrees(np.mean(nods, 0))
    assert np.abs(nod[:100]).max() == 0
    assert 0.8 < nod[100:110].max() < 6


def test_a_phrase_turns_the_head_and_another_one_elsewhere() -> None:
    phrases = np.tile(np.repeat([0.4, 0.0], [30, 45]), 20).astype(np.float32)
    turned = [pose(phrases, seed) - pose(phrases, seed, calm=True) for seed in range(4)]
    ends = np.degrees([[t[75 * k + 25, [0, 2]] for k in range(20)] for t in turned])
    pauses = np.degrees([[t[75 * k + 74, [0, 2]] for k in range(20)] for t in turned])
    assert (ends.std((0, 1)) > 1.5).all()
    assert (pauses.std((0, 1)) < 0.5 * ends.std((0, 1))).all()


def test_calm_is_what_it_was(energy: np.ndarray) -> None:
    np.testing.assert_allclose(pose(energy, 7, calm=True)[[0, 99, 777]], CALM, atol=1e-6)


def test_eyes_and_brows_do_not_depend_on_the_head(energy: np.ndarray) -> None:
    faces = []
    for calm in (False, True):
        life = IdleLife(7, calm=calm)
        faces.append(life.step(life.start(), len(energy), energy)[1])
    np.testing.assert_array_equal(*faces)


def test_seeds_give_different_heads_and_the_same_seed_the_same(energy: np.ndarray) -> None:
    np.testing.assert_array_equal(pose(energy, 3), pose(energy, 3))
    assert np.corrcoef(pose(energy, 3)[:, 0], pose(energy, 5)[:, 0])[0, 1] < 0.6
