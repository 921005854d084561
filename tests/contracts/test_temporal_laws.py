"""The engine with several frames in its cache and motion modules: laws, and what was written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.enroll import Identity
from engine.face.image_file import decode_image
from server.settings import BUNDLED_PORTRAIT
from tests.contracts.small import film, stirred

HOP = 640
HOW = DiffusionSettings(random_weights="small", device="cpu", history=2, motion_modules="v3")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return stirred(EngineConfig.sd15(live=True, num_inference_steps=1, threads=1, diffusion=HOW))[0]


@pytest.fixture(scope="module")
def identity(engine: AvatarEngine) -> Identity:
    return engine.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes()))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal(7 * HOP)).astype(np.float32)


def test_laws_hold_and_a_stopped_run_goes_on(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    whole = film(engine, identity, sound, 10**6)
    np.testing.assert_array_equal(film(engine, identity, sound, 777), whole)
    state = engine.start(identity, seed=3)
    drawn = engine.step(state, np.concatenate([sound, -sound])[: 7 * HOP])
    np.testing.assert_array_equal(np.stack([f.rgb for f in drawn]), whole[: len(drawn)])
    kept = engine.pack(state)
    again = engine.start(identity, seed=3)
    engine.resume(again, len(drawn), kept)
    left = [*engine.step(again, sound), *engine.flush(again)]
    np.testing.assert_array_equal(np.stack([f.rgb for f in left]), whole[len(drawn) :])
    assert len(drawn) == 5


def test_the_cache_is_as_long_as_asked_for(
    engine: AvatarEngine, identity: Identity, sound: np.ndarray
) -> None:
    state = engine.start(identity, seed=3)
    engine.step(state, sound)
    unet, animate = state.cache.keys
    assert len(unet) == 16 + 20
    assert unet[0][0].shape[1] == animate[0][0].shape[1] == 2 * 64
    assert unet[16][0].shape[1] == 4 * 64
