"""Placement measured on the drawn frame: the laws, and that it changes what the next frame is told alone.

The networks' frames are noise; in their place stand pictures of a known face, moved by a known amount.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.errors import ConfigError
from engine.profiles.sd15 import load_engine, load_renderer
from engine.render.sd15 import DiffusionRenderer
from engine.render.sd15_networks import FrameNetworks
from tests.contracts.small import conditions_only

HOP = 640
HOW = DiffusionSettings(random_weights="small", device="cpu", sampler="ddim", placement="measured")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def config() -> EngineConfig:
    return EngineConfig.sd15(live=True, num_inference_steps=1, threads=1, diffusion=HOW)


@pytest.fixture(scope="module")
def engine(config: EngineConfig) -> AvatarEngine:
    return load_engine(config)


def test_the_next_frame_is_told_where_the_head_stands_in_the_last(
    config: EngineConfig, engine: AvatarEngine, portrait: np.ndarray
) -> None:
    renderer = load_renderer(config)
    identity = engine.enroll(portrait)
    state = engine.start(identity, seed=3)
    with conditions_only() as shots:
        engine.step(state, np.zeros(4 * HOP, np.float32))
    face, cold = identity.face, DiffusionRenderer.cold(identity.face)
    shown = face.rgb

    def drawn(rgb: np.ndarray, of: DiffusionRenderer) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FrameNetworks, "decode", lambda *_: [rgb])
            [(_, cache)] = of.draw([(face, cold, shots[0])])
        return np.asarray(cache.placed)

    plain = load_renderer(replace(config, diffusion=replace(HOW, placement="commanded")))
    commanded = plain.networks.aim(face, shots[0]).placed
    np.testing.assert_array_equal(drawn(shown, plain), commanded)
    np.testing.assert_array_equal(drawn(np.zeros_like(shown), renderer), commanded)
    still = drawn(shown, renderer)
    moved = drawn(np.roll(shown, (-2, 3), (0, 1)), renderer)
    assert face.turn is not None
    np.testing.assert_allclose(still[:2], 0, atol=0.1)  # against the portrait's own turn
    np.testing.assert_allclose(still[3:6], face.placed[3:6], atol=0.03)
    np.testing.assert_allclose((moved - still)[3:5] * len(shown), [3, -2], atol=0.6)
    with pytest.MonkeyPatch.context() as patch:
        told: list[np.ndarray] = []
        guide = FrameNetworks.guide
        patch.setattr(
            FrameNetworks,
            "guide",
            lambda own, who, aim, before: told.append(before) or guide(own, who, aim, before),  # type: ignore[func-returns-value]
        )
        renderer.draw([(face, replace(cold, placed=moved), shots[1])])
    np.testing.assert_array_equal(told[0], moved)


def test_laws_hold(engine: AvatarEngine, portrait: np.ndarray) -> None:
    sound = (0.2 * np.random.default_rng(0).standard_normal(5 * HOP)).astype(np.float32)
    identity = engine.enroll(portrait)

    def film(pcm: np.ndarray, cut: int) -> np.ndarray:
        state = engine.start(identity, seed=3)
        frames = [f for i in range(0, len(pcm), cut) for f in engine.step(state, pcm[i : i + cut])]
        return np.stack([f.rgb for f in [*frames, *engine.flush(state)]])

    whole = film(sound, 10**6)
    np.testing.assert_array_equal(film(sound, 777), whole)
    np.testing.assert_array_equal(film(np.concatenate([sound, -sound]), 900)[:3], whole[:3])


def test_what_cannot_be_measured_is_refused(config: EngineConfig) -> None:
    fused = replace(config, diffusion=replace(HOW, long_video="fusion"))
    with pytest.raises(ConfigError, match="none is there to be measured before the next"):
        load_renderer(fused)
