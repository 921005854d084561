import numpy as np
import pytest

from engine.face import arkit
from engine.motion.idle import FPS, IdleLife

BLINK = arkit.index("eyeBlinkLeft")


def draw(seconds: float, seed: int = 0, energy: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    life, n = IdleLife(seed), int(seconds * FPS)
    return life.step(life.start(), n, np.full(n, energy, np.float32))


@pytest.mark.parametrize("cut", [1, 3, 250])
def test_how_many_frames_are_drawn_at_once_changes_nothing(cut: int) -> None:
    energy = np.random.default_rng(1).random(500).astype(np.float32)
    life = IdleLife(5)
    whole = life.step(life.start(), 500, energy)
    state = life.start()
    parts = [life.step(state, len(e), e) for e in np.split(energy, range(cut, 500, cut))]
    np.testing.assert_array_equal(np.concatenate([p for p, _ in parts]), whole[0])
    np.testing.assert_array_equal(np.concatenate([c for _, c in parts]), whole[1])


def test_later_energy_never_changes_an_earlier_frame() -> None:
    quiet, loud = np.zeros(200, np.float32), np.zeros(200, np.float32)
    loud[120:] = 1
    life = IdleLife(2)
    a, b = life.step(life.start(), 200, quiet), life.step(life.start(), 200, loud)
    np.testing.assert_array_equal(a[0][:120], b[0][:120])
    assert (a[0][121:] != b[0][121:]).any()


def test_seeds_give_different_lives_and_the_same_seed_the_same() -> None:
    np.testing.assert_array_equal(draw(10, 3)[0], draw(10, 3)[0])
    assert np.abs(draw(10, 3)[0] - draw(10, 4)[0]).max() > 0.005


def test_blinks_come_every_two_to_six_seconds_and_look_like_blinks() -> None:
    lid = draw(300)[1][:, BLINK] > 0.5
    starts = np.flatnonzero(lid[1:] & ~lid[:-1])
    gaps = np.diff(starts) / FPS
    single = gaps[gaps > 1]
    assert 1.9 <= single.min() <= single.max() <= 7.2
    assert 40 <= len(starts) <= 110
    shut = np.flatnonzero(~lid[1:] & lid[:-1])
    lengths = shut[-10:] - starts[-10:] if shut[0] > starts[0] else shut[-9:] - starts[-10:-1]
    assert 2 <= np.abs(lengths).max() <= 6


def test_lids_close_faster_than_they_open() -> None:
    lid = draw(120)[1][:, BLINK]
    peaks = [
        i for i in range(5, len(lid) - 6) if lid[i] > 0.7 and lid[i] == lid[i - 4 : i + 6].max()
    ]
    rise = np.mean([lid[i] - lid[i - 2] for i in peaks])
    fall = np.mean([lid[i] - lid[i + 2] for i in peaks])
    assert rise > fall > 0


def test_the_head_moves_a_little_smoothly_and_never_far() -> None:
    pose = draw(600)[0]
    assert 0.01 < pose[:, 0].std() < 0.06
    assert np.abs(pose[:, :3]).max() < 0.15
    assert np.abs(pose[:, 5] - 1).max() < 0.03
    assert np.abs(np.diff(pose[:, :3], axis=0)).max() < 0.02
    assert pose[:, :5].mean(0) == pytest.approx(np.zeros(5), abs=0.01)


def test_stress_makes_a_calm_head_nod_down_and_come_back() -> None:
    life, n = IdleLife(0, calm=True), 100
    energy = np.zeros(n, np.float32)
    energy[20:26] = 1
    still = life.step(life.start(), n)[0][:, 1]
    nod = life.step(life.start(), n, energy)[0][:, 1] - still
    assert 0.005 < nod[20:40].max() < 0.08
    assert abs(nod[-1]) < 0.004


def test_the_mouth_is_left_alone_and_values_stay_in_range() -> None:
    face = draw(60, energy=0.6)[1]
    assert face[:, arkit.MOUTH].max() == 0
    assert 0 <= face.min() <= face.max() <= 1
    assert face[:, arkit.index("browInnerUp")].max() > 0


def test_energy_of_another_length_is_refused() -> None:
    life = IdleLife(0)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        life.step(life.start(), 3, np.zeros(4, np.float32))
