"""Our loop against diffusers' own pipeline, and the frame cache."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from engine.diffusion.samplers import (
    SAMPLERS,
    Denoising,
    Model,
    make_scheduler,
    sample,
    sample_frames,
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
        sampler,
        steps,
        unconditional=model(nothing),
        guidance=guidance,
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

    ours = sample(velocity, noise, "flow", 4)
    theirs = painter.sample(condition, reference, cache, noise, 4)[2].latents
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_sampler_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"ddim, euler, dpm\+\+, lcm, tcd, flow"):
        make_scheduler("dopri5")


def test_the_seed_decides_the_noise_between_steps() -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def run(seed: int) -> Tensor:
        again = torch.Generator().manual_seed(seed)
        return sample(lambda z, t: 0.1 * z, noise, "lcm", 4, generator=again)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_run_that_was_stopped_goes_on_to_the_same_latents(sampler: str) -> None:
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def model(z_t: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(z_t) * (t / 1000)[:, None, None, None]

    def begin() -> Denoising:
        return Denoising(noise, sampler, 6, generator=torch.Generator().manual_seed(5))

    run = begin()
    for step in range(6):
        kept = run.pack()
        run = begin()  # stopped before each step
        run.unpack(kept)
        assert run.step == step
        run.advance(model(*run.ask()))
    whole = sample(model, noise, sampler, 6, generator=torch.Generator().manual_seed(5))
    assert torch.equal(run.z_t, whole)


def test_progress_counts_steps() -> None:
    seen: list[int] = []
    sample(lambda z, t: z, torch.zeros(1, 4, 2, 2), "euler", 3, progress=seen.append)
    assert seen == [1, 2, 3]


def test_guidance_of_one_never_asks_the_unconditional_model() -> None:
    def never(z_t: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    noise = torch.zeros(1, 4, 2, 2)
    assert sample(lambda z, t: z, noise, steps=2, unconditional=never, guidance=1.0).shape


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_each_frame_sees_what_the_one_before_left(guidance: float) -> None:
    seen: list[tuple[int, float]] = []

    def model(z_t: Tensor, t: Tensor, frame: int, cache: float) -> tuple[Tensor, float]:
        seen.append((frame, cache))
        return 0.1 * z_t, cache + 1 + float(t[0]) * 0

    noise = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    made = list(
        sample_frames(
            *(model, noise, 0.0, "ddim", 2),
            unconditional=lambda z, t, i, c: (0 * z, None),
            guidance=guidance,
            first=5,
        )
    )
    assert seen == [(5, 0.0), (5, 0.0), (6, 1.0), (6, 1.0), (7, 2.0), (7, 2.0)]
    assert [cache for _, cache in made] == [1.0, 2.0, 3.0]
    whole = torch.cat([latents for latents, _ in made])
    expected = sample(lambda z, t: 0.1 * guidance * z, noise, "ddim", 2)
    torch.testing.assert_close(whole, expected)
