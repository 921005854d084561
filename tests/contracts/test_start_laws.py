"""Frames that begin from the frame before, not from noise: the laws, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.diffusion.samplers import make_scheduler
from engine.enroll import Identity
from engine.errors import ConfigError
from engine.profiles.sd15 import load_renderer
from engine.render.sd15 import DiffusionRenderer
from engine.types import Quality
from tests.contracts.small import conditions_only, decoded, film, stirred

HOP = 640
HOW = DiffusionSettings(random_weights="small", device="cpu", sampler="ddim", start="last")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made() -> tuple[AvatarEngine, DiffusionRenderer]:
    return stirred(EngineConfig.sd15(live=True, num_inference_steps=4, threads=1, diffusion=HOW))


@pytest.fixture(scope="module")
def identity(made: tuple[AvatarEngine, DiffusionRenderer], portrait: np.ndarray) -> Identity:
    return made[0].enroll(portrait)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal(6 * HOP)).astype(np.float32)


def test_laws_hold_a_stopped_run_goes_on_and_company_changes_nothing(
    made: tuple[AvatarEngine, DiffusionRenderer], identity: Identity, sound: np.ndarray
) -> None:
    engine = made[0]
    whole = film(engine, identity, sound, 10**6)
    np.testing.assert_array_equal(film(engine, identity, sound, 777), whole)
    state = engine.start(identity, seed=3)
    drawn = engine.step(state, np.concatenate([sound, -sound])[: 6 * HOP])
    np.testing.assert_array_equal(np.stack([f.rgb for f in drawn]), whole[: len(drawn)])
    kept = engine.pack(state)
    again = engine.start(identity, seed=3)
    engine.resume(again, len(drawn), kept)
    left = [*engine.step(again, sound), *engine.flush(again)]
    np.testing.assert_array_equal(np.stack([f.rgb for f in left]), whole[len(drawn) :])
    assert (np.abs(np.diff(whole.astype(int), axis=0)).max((1, 2, 3)) > 0).all()
    others = [engine.start(identity, seed=seed) for seed in (3, 4)]
    engine.set_quality(others[1], Quality(steps=3))
    shared, _ = engine.step_many([(other, sound) for other in others])
    apart = np.abs(np.stack([f.rgb for f in shared]).astype(int) - whole[: len(shared)])
    assert apart.max() <= 1


def test_it_begins_at_the_last_frame_noised_to_the_middle_and_changes_nothing_else(
    made: tuple[AvatarEngine, DiffusionRenderer], identity: Identity, sound: np.ndarray
) -> None:
    """By hand: what the networks are asked in the second frame is that, and no word of it more or less."""
    engine, renderer = made
    networks = renderer.networks
    with conditions_only() as shots:
        engine.step(engine.start(identity, seed=3), sound)
    asked: list[tuple[torch.Tensor, int]] = []
    step = networks.step

    def seen(z_t: torch.Tensor, t: torch.Tensor, *told: object) -> object:
        asked.append((z_t.clone(), int(t[0])))
        return step(z_t, t, *told)

    plain = DiffusionRenderer.cold(identity.face)
    with pytest.MonkeyPatch.context() as patch, decoded() as latents:
        patch.setattr(networks, "step", seen)
        [(first, cache)] = renderer.draw([(identity.face, plain, shots[0])])
        assert [t for _, t in asked] == [999, 749, 499, 249], "the first frame has none before it"
        torch.testing.assert_close(cache.latents, latents[0])
        asked.clear()
        [(second, _)] = renderer.draw([(identity.face, cache, shots[1])])
        assert [t for _, t in asked] == [499, 249]
        kept = make_scheduler("ddim").alphas_cumprod[499]
        begun = kept.sqrt() * latents[0] + (1 - kept).sqrt() * shots[1].noise.start
        torch.testing.assert_close(asked[0][0], begun)
        asked.clear()
        patch.setattr(renderer, "sampling", replace(renderer.sampling, start="noise"))
        [(same, left)] = renderer.draw([(identity.face, plain, shots[0])])
        [(fresh, _)] = renderer.draw([(identity.face, left, shots[1])])
        assert [t for _, t in asked] == 2 * [999, 749, 499, 249]
    np.testing.assert_array_equal(same, first)
    for ours, theirs in zip(
        left.keys[0] + left.keys[1], cache.keys[0] + cache.keys[1], strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert (fresh != second).any()


def test_what_cannot_begin_there_is_refused() -> None:
    config = EngineConfig.sd15(live=False, threads=1, diffusion=replace(HOW, long_video="fusion"))
    with pytest.raises(ConfigError, match="samples all frames together, so none is the last"):
        load_renderer(config)
    strong = replace(config, diffusion=replace(HOW, start_strength=0.0))
    with pytest.raises(ConfigError, match=r"start_strength=0\.0 is out of range; above 0 to 1"):
        load_renderer(strong)
