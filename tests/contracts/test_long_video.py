"""Three ways to tie the frames of a long video together, in the sd15 profile at small size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from engine.avatar import AvatarEngine
from engine.config import DiffusionSettings, EngineConfig
from engine.diffusion.latent_fusion import window_weights
from engine.diffusion.samplers import Denoising, SamplerSettings
from engine.errors import ConfigError
from engine.nets.attention import SelfAttention
from engine.nets.guided_attention import TemporalSelfAttention
from engine.offline.video import Casting, generate
from engine.render.base import FrameCondition
from engine.render.sd15 import DiffusionRenderer
from engine.render.sd15_networks import DiffusionFace
from engine.render.together import together
from tests.contracts.small import conditions_only, decoded, shown_in, stirred, write_wav

HOP, FRAMES = 640, 7
SMALL = DiffusionSettings(
    random_weights="small",
    sampler="ddim",
    guidance_scale=2.0,
    device="cpu",
    window=4,
    overlap=2,
)
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.2 * rng.standard_normal(FRAMES * HOP - 100)).astype(np.float32)


@pytest.fixture(scope="module")
def wav(sound: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("sound") / "noise.wav", sound)


Made = tuple[AvatarEngine, DiffusionRenderer]


def engine(way: str, steps: int = 1, **how: Any) -> Made:
    diffusion = replace(SMALL, long_video=way, **how)  # type: ignore[arg-type]
    config = EngineConfig.sd15(
        live=False, num_inference_steps=steps, threads=1, diffusion=diffusion
    )
    return stirred(config)


def film(made: Made, portrait: np.ndarray, sound: np.ndarray) -> Tensor:
    """Latents of every frame (F, 4, 8, 8), as the decoder is given them."""
    engine, _ = made
    state = engine.start(engine.enroll(portrait), seed=3)
    whole = np.pad(sound, (0, -len(sound) % HOP))
    with decoded() as kept:
        if engine.config.diffusion.long_video != "fusion":
            engine.step(state, whole)
            engine.flush(state)
            return torch.cat(kept)
        together = engine.fuse(state, whole)
        while together.done < together.total:
            together.work()
        for i in range(FRAMES):
            together.frame(i)
    return torch.cat(kept)


def blind(made: Made) -> Made:
    """The same networks, which do not look at other frames."""
    for module in made[1].networks.model.modules():
        if isinstance(module, TemporalSelfAttention):
            module.query = None
        elif isinstance(module, SelfAttention):
            module.previous = False
    return made


def differ(a: Tensor, b: Tensor) -> Tensor:
    """Largest difference of each frame (F,)."""
    return (a - b).abs().amax((1, 2, 3))


@pytest.fixture(scope="module")
def alone(portrait: np.ndarray, sound: np.ndarray) -> Tensor:
    return film(engine("neither"), portrait, sound)


def conditions_of(
    portrait: np.ndarray, sound: np.ndarray
) -> tuple[list[FrameCondition], DiffusionFace]:
    """What each frame is to show, and who is shown."""
    engine_, _ = engine("neither")
    identity = engine_.enroll(portrait)
    state = engine_.start(identity, seed=3)
    with conditions_only() as conditions:
        engine_.step(state, np.pad(sound, (0, -len(sound) % HOP)))
        engine_.flush(state)
    return conditions, identity.face


def test_neither_draws_each_frame_as_if_it_were_the_only_one(
    portrait: np.ndarray, sound: np.ndarray, alone: Tensor
) -> None:
    conditions, face = conditions_of(portrait, sound)
    networks = engine("neither")[1].networks
    assert len(conditions) == len(alone) == FRAMES
    placed = face.placed  # all it knows of the frame before: where the head was
    for i, condition in enumerate(conditions):
        aim = networks.aim(face, condition)
        model = networks.frame_model(face, networks.guide(face, aim, placed), aim.text, None)
        [latents] = together(networks.step, [networks.sample(model, condition)])
        assert torch.equal(latents[0], alone[i])
        placed = aim.placed


def test_with_the_cache_the_frame_before_matters(
    portrait: np.ndarray, sound: np.ndarray, alone: Tensor
) -> None:
    frames = film(engine("cache"), portrait, sound)
    assert torch.equal(frames[0], alone[0])
    assert (differ(frames, alone)[1:] > 1e-3).all()
    assert torch.equal(film(blind(engine("cache")), portrait, sound), alone)


def test_fusion_of_a_model_that_sees_no_other_frame_draws_them_alone(
    portrait: np.ndarray, sound: np.ndarray, alone: Tensor
) -> None:
    """All that fusion adds is what a window's frames see of each other: guidance, noise, words and
    order of the frames are those of the frame-by-frame path."""
    torch.testing.assert_close(
        film(blind(engine("fusion")), portrait, sound), alone, rtol=0, atol=1e-4
    )
    assert (differ(film(engine("fusion"), portrait, sound), alone) > 1e-3).all()


def test_a_frame_of_several_windows_is_the_weighted_mean_of_their_predictions(
    portrait: np.ndarray, sound: np.ndarray
) -> None:
    """Windows of 4 that share 2, the portrait first in each: worked out here a second time."""
    made = engine("fusion")
    networks = made[1].networks
    conditions, face = conditions_of(portrait, sound)
    aims = [networks.aim(face, condition) for condition in conditions]
    rest = networks.rest(face, aims[0].text, aims[0].speech)
    guides = [networks.guide(face, rest, face.placed)]
    guides += [networks.guide(face, a, b.placed) for a, b in zip(aims, [rest, *aims], strict=False)]
    noise, t = made[1].noise(3).start, torch.tensor([999])
    total, weight = torch.zeros(FRAMES + 1, 4, 8, 8), torch.zeros(FRAMES + 1, 1, 1, 1)
    with torch.inference_mode():
        for members in ([0, 1, 2, 3], [0, 3, 4, 5], [0, 5, 6, 7]):
            before = None
            for share, row in zip(window_weights(4), members, strict=True):
                model = networks.frame_model(face, guides[row], rest.text, before)
                [predicted] = together(networks.step, [model.predict(noise, t)])
                total[row] += share * predicted[0]
                weight[row] += share
                before = model.keys
        settings = SamplerSettings(num_inference_steps=1, trailing=True)
        run = Denoising(noise.expand(FRAMES + 1, -1, -1, -1), settings)
        run.advance(total / weight)
    torch.testing.assert_close(film(made, portrait, sound), run.z_t[1:], rtol=0, atol=1e-4)


# After a step, when sampled, when partly decoded.
@pytest.mark.parametrize(("sampler", "stops"), [("ddim", (3,)), ("lcm", (3, 6, 9))])
def test_latent_fusion_stopped_anywhere_goes_on_as_if_it_had_not(
    portrait: np.ndarray, wav: Path, tmp_path: Path, sampler: str, stops: tuple[int, ...]
) -> None:
    made, _ = engine("fusion", 2, sampler=sampler)
    casting = Casting(portraits=[portrait], prompt="older", seed=1)
    seen: list[tuple[int, int]] = []
    whole = generate(made, casting, wav, tmp_path / "whole", progress=lambda *at: seen.append(at))
    assert whole.pieces == 2 * 3 + FRAMES
    steps = [3, 6]  # the windows of a step are done together
    assert seen == [(i, whole.pieces) for i in [0, *steps, *range(7, whole.pieces + 1)]]

    for stop_at in stops:

        def stop(done: int, total: int, stop_at: int = stop_at) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            generate(made, casting, wav, tmp_path / "cut", save_every_s=0, progress=stop)
    report = generate(made, casting, wav, tmp_path / "cut")
    assert report.resumed_at == stops[-1]
    a, b = (shown_in(tmp_path / n) for n in ("whole", "cut"))
    assert len(a) == FRAMES
    assert a == b


def test_latent_fusion_makes_a_video_and_leaves_nothing_else(
    portrait: np.ndarray, wav: Path, tmp_path: Path
) -> None:
    report = generate(engine("fusion")[0], Casting(portraits=[portrait]), wav, tmp_path / "o.mp4")
    assert report.frames == FRAMES
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert len(list(container.decode(video=0))) == FRAMES


def test_fusion_is_refused_where_frames_come_one_by_one(
    portrait: np.ndarray, sound: np.ndarray
) -> None:
    with pytest.raises(ConfigError, match="'cache' or 'neither'"):
        EngineConfig.sd15(live=True, diffusion=replace(SMALL, long_video="fusion"))
    made, _ = engine("fusion")
    with pytest.raises(ConfigError, match="together"):
        made.step(made.start(made.enroll(portrait)), sound)
    for window, overlap in ((2, 0), (4, 3), (8, -1)):
        with pytest.raises(ConfigError, match=f"window={window}, overlap={overlap}"):
            replace(SMALL, window=window, overlap=overlap)
