"""The measures that networks make, against known answers: they go the right way, and know what is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config import WEIGHTS
from engine.evaluation.drawn_set import hum
from engine.evaluation.measures import Clip, Settings, measure_clip
from engine.evaluation.measures.identity import embeddings, of_portrait
from engine.evaluation.measures.inception import fid, inception_features
from engine.evaluation.measures.latents import codec, drift_a_minute, latent_statistics
from engine.evaluation.measures.measure import resized
from engine.evaluation.measures.perceptual import lpips
from engine.evaluation.track import follow
from engine.motion.retarget import FaceBasis
from engine.training.data.drawn_clips import DrawnPerson, landmarks_of, neutral_shape, paint, walls
from server.settings import BUNDLED_PORTRAIT

pytestmark = pytest.mark.train
STORE = Settings().store


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.asarray(Image.open(BUNDLED_PORTRAIT).convert("RGB").crop((96, 0, 352, 256)))


@pytest.fixture(scope="module")
def film(portrait: np.ndarray) -> Clip:
    """A good second, in which only every second picture is another one."""
    opening = (0.5 - 0.5 * np.cos(np.arange(28) // 2)).astype(np.float32)
    frames = np.stack([np.roll(portrait, int(6 * o), axis=1) for o in opening])
    return Clip(resized(frames, 160, 160), 25.0, hum(opening))


def noisy(frames: np.ndarray, scale: float) -> np.ndarray:
    """The same noise on each of frames (T, H, W, 3)."""
    noise = np.random.default_rng(1).normal(scale=scale, size=frames.shape[-3:])
    return np.clip(frames + noise, 0, 255).round().astype(np.uint8)


def test_latents_of_one_crop_have_unit_mean_square_and_a_film_that_stands_does_not_drift(
    portrait: np.ndarray,
) -> None:
    frames = np.repeat(portrait[None], 3, axis=0)
    track = follow(frames[:1])
    still = replace(track, landmarks=np.repeat(track.landmarks, 3, axis=0))
    found = latent_statistics(frames, still)
    assert found.shape == (3, 2, 16)
    assert np.square(found).sum(1).mean(1) == pytest.approx([1] * 3, abs=0.02)
    assert drift_a_minute(found[:, 0]) == pytest.approx(0, abs=1e-4)
    frames = np.stack([(portrait * light).astype(np.uint8) for light in (1, 0.9, 0.8)])
    assert drift_a_minute(latent_statistics(frames, still)[:, 0]) > 1
    assert codec() is codec()


def test_a_planted_drift_is_told_a_minute() -> None:
    minutes = np.arange(100) / 25 / 60
    slopes = np.array([3.0, -4.0, 0.0, 0.0])
    wave = np.sin(2 * np.pi * np.arange(100) / 4)[:, None] * 1e-4
    assert drift_a_minute(minutes[:, None] * slopes + wave) == pytest.approx(2.5, rel=0.02)
    assert drift_a_minute(np.zeros((1, 4))) == 0


@pytest.mark.slow  # it needs networks that are downloaded
def test_planted_noise_raises_lpips_and_fid_step_by_step(film: Clip) -> None:
    frames = film.frames[:16:2]
    real = inception_features(frames, STORE)
    assert fid(real, real) == pytest.approx(0, abs=1e-3)
    last = [0.0, 0.0, 0.0]
    for net in ("alexnet", "vgg16"):
        assert lpips(frames[:2], frames[:2], STORE, net).tolist() == [0, 0]
    for scale in (4, 12, 36):
        worse = noisy(frames, scale)
        apart = [lpips(worse[:2], frames[:2], STORE, n).mean() for n in ("alexnet", "vgg16")]
        now = [*apart, fid(inception_features(worse, STORE), real)]
        assert all(a > b for a, b in zip(now, last, strict=True)), (scale, now, last)
        last = now


@pytest.mark.slow
def test_another_person_has_a_lower_csim(portrait: np.ndarray) -> None:
    basis, person = FaceBasis.load(WEIGHTS / "tiny" / "basis.npz"), DrawnPerson.draw(100)
    still = np.zeros(52, np.float32), np.zeros(6, np.float32)
    points = landmarks_of(person, neutral_shape(), basis, *still)
    drawn = paint(person, points, 256, walls(person, 1, 0)[0])
    for own, other in ((portrait, drawn), (drawn, portrait)):
        frames = np.stack([np.roll(own, 2, axis=1), noisy(own, 4)])
        seen = embeddings(frames, follow(frames).landmarks, STORE)
        assert (seen @ of_portrait(own, STORE) > 0.6).all()
        assert (seen @ of_portrait(own, STORE) > seen @ of_portrait(other, STORE) + 0.3).all()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_same_pictures_with_another_sound_are_read_and_compared_once(
    film: Clip, tmp_path: Path
) -> None:
    settings = Settings(kept=tmp_path)
    worse = replace(film, frames=noisy(film.frames, 3))
    other = replace(worse, sound=np.roll(worse.sound, 8000))
    first = measure_clip(worse, film, film.frames[0], "pose-given", settings, first=1)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert sorted(path.parent.name for path in kept) == ["pictures", "pictures", "pixels"]
    second = measure_clip(other, film, film.frames[0], "pose-given", settings, first=1)
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    alone = measure_clip(other, film, film.frames[0], "pose-given", first=1)
    assert second.values == pytest.approx(alone.values, rel=1e-3, abs=1e-5, nan_ok=True)
    assert {"psnr", "lpips_vgg", "csim", "drift_latent_mean"} <= set(first.values)
    differ = {n for n in first.values if first.values[n] != second.values[n]}
    assert differ <= {"own_sync_c", "own_sync_d", "own_sync_offset"}
    assert second.costs["FID, KID"] == first.costs["FID, KID"]
    assert all(cost["peak_mb"] > 0 for cost in second.costs.values())
