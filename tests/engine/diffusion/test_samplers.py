"""Our loop against diffusers' own pipeline, and the frame cache."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from engine.diffusion.samplers import (
    SAMPLERS,
    Denoising,
    Model,
    SamplerSettings,
    make_scheduler,
    sample,
    set_steps,
)
from engine.errors import ConfigError
from engine.nets.painter import Painter, PainterConfig

torch.set_num_threads(1)
DIFFUSION = [name for name in SAMPLERS if name != "flow"]


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=None,
        unet=unet,
        scheduler=make_scheduler("ddim"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # the pipeline's own
@pytest.mark.parametrize("guidance", [1.0, 3.5])
@pytest.mark.parametrize("sampler", DIFFUSION)
@torch.no_grad()
def test_our_loop_gives_the_numbers_of_diffusers_pipeline(
    pipe: StableDiffusionPipeline, sampler: str, guidance: float
) -> None:
    steps, noise = 5, torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words, nothing = torch.randn(2, 2, 8, 16, generator=torch.Generator().manual_seed(2))
    pipe.scheduler = make_scheduler(sampler)
    theirs = pipe(
        prompt_embeds=words,
        negative_prompt_embeds=nothing,
        latents=noise.clone(),
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
        generator=torch.Generator().manual_seed(3),
        eta=0.3 if sampler == "tcd" else 0.0,
    ).images

    def model(context: Tensor) -> Model:
        return lambda z_t, t: pipe.unet(z_t, t, context, return_dict=False)[0]

    ours = sample(
        model(words),
        noise,
        SamplerSettings(sampler=sampler, num_inference_steps=steps, guidance_scale=guidance),
        unconditional=model(nothing),
        generator=torch.Generator().manual_seed(3),
    )
    assert torch.isfinite(ours).all()
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@torch.no_grad()
def test_the_flow_sampler_is_the_painters_own() -> None:
    torch.manual_seed(0)
    painter = Painter(PainterConfig((8, 8, 8), (8, 8), (8, 8), 8)).eval()
    reference = painter.enroll(torch.rand(1, 3, 128, 128) * 2 - 1)
    source = torch.rand(1, 478, 2)
    condition = painter.condition(
        torch.rand(1, 3, 128, 128), reference, source, source + 0.01, torch.zeros(1, 6)
    )
    cache, noise = painter.cold(reference), painter.noise(1)
    guidance = painter.guide(condition, cache)

    def velocity(z_t: Tensor, t: Tensor) -> Tensor:
        now = t / 1000
        made = painter.denoise(z_t, now, guidance, reference, cache)
        return (z_t - made.latents) / now[:, None, None, None]

    ours = sample(velocity, noise, SamplerSettings(sampler="flow", num_inference_steps=4))
    theirs = painter.sample(condition, reference, cache, noise, 4)[2].latents
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_sampler_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"ddim, euler, dpm\+\+, lcm, tcd, flow"):
        make_scheduler("dopri5")


def test_the_seed_decides_the_noise_between_steps() -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def run(seed: int) -> Tensor:
        again = torch.Generator().manual_seed(seed)
        settings = SamplerSettings(sampler="lcm", num_inference_steps=4)
        return sample(lambda z, t: 0.1 * z, noise, settings, generator=again)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_that_was_stopped_goes_on_to_the_same_latents(sampler: str) -> None:
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    settings = SamplerSettings(sampler=sampler, num_inference_steps=6)

    def model(z_t: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(z_t) * (t / 1000)[:, None, None, None]

    def begin() -> Denoising:
        return Denoising(noise, settings, generator=torch.Generator().manual_seed(5))

    run = begin()
    for step in range(6):
        kept = run.pack()
        run = begin()  # stopped before each step
        run.unpack(kept)
        assert run.step == step
        run.advance(model(*run.ask()))
    whole = sample(model, noise, settings, generator=torch.Generator().manual_seed(5))
    assert torch.equal(run.z_t, whole)


@pytest.mark.parametrize("sampler", DIFFUSION)
@pytest.mark.parametrize(("strength", "asked"), [(0.5, 3), (1.0, 6), (0.01, 1)])
def test_a_run_begins_from_latents_at_a_later_time_and_takes_the_last_steps(
    sampler: str, strength: float, asked: int
) -> None:
    """A model that knows the clean latents leads back to them, from as much noise as that time has."""
    g = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(1, 4, 4, 4, generator=g) for _ in range(2))
    settings = SamplerSettings(sampler=sampler, num_inference_steps=6)
    times = set_steps(make_scheduler(sampler), 6)
    signal = make_scheduler("ddim").alphas_cumprod.sqrt()
    run = Denoising(
        noise,
        settings,
        generator=torch.Generator().manual_seed(5),
        clean=clean,
        strength=strength,
    )
    seen = []
    while run.step < run.steps:
        z_t, t = run.ask()
        seen.append(float(t[0]))
        a = signal[t.round().long()].view(-1, 1, 1, 1)
        eps = (z_t - a * clean) / (1 - a.square()).sqrt()
        if len(seen) == 1:
            torch.testing.assert_close(eps, noise, atol=1e-2, rtol=0)  # times between
        run.advance(eps)
    assert seen == [float(t) for t in times[-asked:]]
    torch.testing.assert_close(run.z_t, clean, atol=0.1, rtol=0)


def test_progress_counts_steps() -> None:
    seen: list[int] = []
    settings = SamplerSettings(sampler="euler", num_inference_steps=3)
    sample(lambda z, t: z, torch.zeros(1, 4, 2, 2), settings, progress=seen.append)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("none", [1.0, 0.0])
def test_without_guidance_the_unconditional_model_is_never_asked(none: float) -> None:
    """0 stands for no guidance too, as few-step weights document it; it drew nobody, saying nothing."""

    def never(z_t: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    noise = torch.zeros(1, 4, 2, 2)
    settings = SamplerSettings(num_inference_steps=2, guidance_scale=none)
    assert sample(lambda z, t: z, noise, settings, unconditional=never).shape


@pytest.mark.parametrize("sampler", DIFFUSION)
def test_steps_set_on_two_threads_leave_the_warning_filters_alone(sampler: str) -> None:
    before, contents = warnings.filters, list(warnings.filters)
    both = threading.Barrier(2)
    seen: list[bool] = []
    plain = type(make_scheduler(sampler))

    class Watched(plain):  # type: ignore[misc, valid-type]
        def set_timesteps(self, num_inference_steps: int) -> None:
            both.wait(20)
            super().set_timesteps(num_inference_steps)
            seen.append(warnings.filters is before and warnings.filters == contents)
            both.wait(20)

    def choose() -> list[float]:
        scheduler = Watched.from_config(make_scheduler(sampler).config)
        return set_steps(scheduler, 4).tolist()

    with ThreadPoolExecutor(2) as pool:
        first, second = (job.result(30) for job in [pool.submit(choose), pool.submit(choose)])
    assert first == second == set_steps(make_scheduler(sampler), 4).tolist()
    assert seen == [True, True]
    assert warnings.filters is before
    assert warnings.filters == contents
