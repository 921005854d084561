"""What the stages train, their samples, and their losses."""

import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from engine.config import DiffusionSettings, EngineConfig, SamplerName
from engine.diffusion.samplers import Denoising
from engine.errors import DataError
from engine.loaders.files import WrongFamily
from engine.loaders.run_card import WEIGHTS
from engine.loaders.trained import load_trained
from engine.profiles.sd15 import sampling_of
from engine.training.data.clips import PROMPT, Clip, load_clips
from engine.training.portraittalk.diffusion_loss import NoiseSchedule, shifted
from engine.training.portraittalk.stage_config import STAGES, StageSettings
from engine.training.portraittalk.stages import StageLoss, frames_of, history_time, is_new
from tests.engine.training.stage_runs import DEPTH, SIDE, data, names, system

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]


def test_lines_reach_a_random_animate_net_as_large_as_they_are_drawn() -> None:
    made = system()
    lines = torch.zeros(1, 3, SIDE, SIDE)
    lines[:, 1, 20:22] = 1
    with torch.no_grad():
        seen = made.model.animate.net.controlnet_cond_embedding(lines)
    assert (seen - seen.mean((2, 3), keepdim=True)).std() > 0.1


# -- losses


def test_an_error_of_noise_weighed_by_one_over_snr_is_that_of_the_latents() -> None:
    schedule, t = NoiseSchedule(), torch.tensor([20, 500, 990])
    z, noise, wrong = torch.randn(3, 3, 4, 8, 8).unbind(0)
    z_t, eps = schedule.add(z, noise, t), noise + 0.1 * wrong
    of_latents = (schedule.clean(z_t, eps, t) - z).square().mean((1, 2, 3))
    of_noise = (eps - noise).square().mean((1, 2, 3)) * schedule.latent_weight(t)
    torch.testing.assert_close(of_noise, of_latents, rtol=1e-3, atol=1e-7)


def test_shift_leans_timesteps_to_high_noise() -> None:
    share = torch.tensor([0.0, 0.25, 0.5, 0.9, 0.9999])
    assert shifted(share, 1.0).tolist() == [0, 250, 500, 900, 999]
    assert shifted(share, 3.0).tolist() == [0, 500, 750, 964, 999]


@pytest.mark.parametrize("live", [True, False])
def test_the_cache_is_of_a_time_that_histories_cover(live: bool) -> None:
    """Whatever the sampler and its steps, the last time asked is one that the joint stage draws."""
    covered = sorted(history_time(share / 1000) for share in range(1001))
    for sampler in get_args(SamplerName):
        for steps in range(1, 51):
            diffusion = DiffusionSettings(sampler=sampler)
            config = EngineConfig.sd15(live=live, num_inference_steps=steps, diffusion=diffusion)
            run = Denoising(torch.zeros(1, 4, 1, 1), sampling_of(config))
            run.step = steps - 1
            last = float(run.ask()[1])
            assert covered[0] <= last <= covered[-1], (sampler, steps)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    made = system()
    name, parameter = next(iter(made.model.unet.named_parameters()))
    save_file({f"unet.{name}": parameter.detach() * 0}, tmp_path / WEIGHTS)
    assert load_trained(made.model, [tmp_path, tmp_path / "none"]) == [tmp_path / WEIGHTS]
    assert not parameter.detach().any()
    save_file({f"unet.{name}": torch.zeros(3)}, tmp_path / WEIGHTS)
    with pytest.raises(WrongFamily, match="another \\[model\\]"):
        load_trained(made.model, [tmp_path])


# -- what is trained


def test_stages_train_what_the_paper_says() -> None:
    assert all(n.startswith("codec.tiny.") for n in names("codec"))
    identity = names("identity")
    assert {n.split(".")[0] for n in identity} == {"unet", "projection"}
    animate = names("animate")
    assert {n.split(".")[0] for n in animate} == {"animate"}
    assert not any(".attn1.processor." in n for n in animate), "temporal attention comes last"
    joint = names("joint")
    assert joint > identity | animate
    assert any(".attn1.processor." in n for n in joint)
    assert not any(".attn1.processor." in n for n in names("joint", temporal=False))
    assert any(
        n.startswith("reference_net.") for n in names("joint", reference_writer="reference_net")
    )


def test_motion_modules_are_trained_last_and_see_what_they_will() -> None:
    moving = {"motion_modules": "v3", "motion_window": 2, "history": 3}
    assert names("identity", **moving) == names("identity")
    more = names("joint", **moving) - names("joint")
    assert all(n.startswith("unet.motion.") for n in more)
    assert len({n.partition(".transformer_blocks.")[0] for n in more if "attn1" in n}) == 20
    assert more <= names("joint", "new", **moving), "no checkpoint of Stable Diffusion holds them"
    config = system(**moving).model.config
    assert [frames_of(stage, config) for stage in STAGES] == [1, 1, 1, 4]
    assert frames_of("joint", system().model.config) == 2


def test_the_joint_stage_learns_with_any_number_of_frames_before(
    drawn: Path, tmp_path: Path
) -> None:
    moving = {"motion_modules": "v3", "motion_window": 2, "history": 2}
    made, batch = system(**moving), data(drawn, frames=3).batch(2, (0,))
    loss = StageLoss(made, "joint", StageSettings(cold=0.0))
    with torch.no_grad():
        told = made.conditions(batch)
        lengths = set()
        for seed in range(8):
            torch.manual_seed(seed)
            unet, animate = loss._history(batch, told)
            lengths.add((unet[0][0].shape[1], unet[16][0].shape[1], animate[0][0].shape[1]))
    assert lengths == {(64, 64, 64), (128, 128, 128)}, "one frame before, and two"
    torch.manual_seed(0)
    loss(batch).backward()
    moved = [p for n, p in made.model.named_parameters() if ".motion." in n and "proj_out" in n]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in moved)


def test_new_weights_are_those_no_public_checkpoint_holds() -> None:
    new = names("identity", "new")
    assert {n.rsplit(".", 2)[-2] for n in new if n.startswith("unet.")} == {"to_k_ip", "to_v_ip"}
    assert len([n for n in new if n.startswith("unet.")]) == 32
    guided = names("joint", "new") - new
    assert all(".processor." in n or "_tokens." in n for n in guided)
    assert all(is_new(n) for n in guided)
    assert not is_new("animate.net.controlnet_cond_embedding.conv_in.weight")


def test_batches_depend_on_the_seed_alone(drawn: Path) -> None:
    a, b, c = (data(drawn, masked=0.5).batch(3, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    assert torch.equal(a.frames, b.frames)
    assert torch.equal(a.mask, b.mask)
    assert not torch.equal(a.frames, c.frames)
    assert a.frames.shape == (3, 2, 3, SIDE, SIDE)
    assert a.points.shape == (3, 2, 68, 3)
    assert a.references.shape == (3, 1, 3, SIDE, SIDE)
    assert a.prompts == (PROMPT,) * 3


def test_injection_changes_neither_the_start_of_other_layers_nor_what_identity_learns() -> None:
    plain, attending = (
        dict(system(**switches).model.named_parameters())
        for switches in ({}, {"injection": "cross_attention"})
    )
    both = plain.keys() & attending.keys()
    assert len(both) > 500
    assert all(torch.equal(plain[name], attending[name]) for name in both)
    added = {name for name in attending if ".animation." in name}
    assert attending.keys() - both == added
    assert names("identity", injection="cross_attention") == names("identity")
    assert added < names("animate", injection="cross_attention")
    assert added < names("animate", "new", injection="cross_attention")
    assert {n for n in names("animate") if n.startswith("unet.")} == set()


def test_samples_have_one_portrait_or_more_and_tokens_of_each(drawn: Path) -> None:
    several = data(drawn, references=4)
    batches = [several.batch(2, (0, step)) for step in range(24)]
    counts = [batch.references.shape[1] for batch in batches]
    assert sorted(set(counts)) == [1, 2, 3, 4]
    assert several.fixed(2).references.shape[1] == 4
    made = system(references="all")
    for count in (1, 2, 4):
        batch = batches[counts.index(count)]
        with torch.no_grad():
            told = made.conditions(batch)
        assert told.identity.shape[1] == count * made.model.config.identity_tokens
        one = made.model.write_reference(
            made.encode(batch.references[:, :1]),
            told.text,
            told.identity,
        )
        for (key, _), (own, _) in zip(told.reference, one, strict=True):
            assert key.shape[1] == count * own.shape[1]


def test_placement_is_that_of_the_frame_before(drawn: Path) -> None:
    batch = data(drawn, frames=3).batch(4, (0,))
    assert torch.equal(batch.placement[:, 1:, 5:], placements(batch.landmarks[:, :2])[..., 5:])


def placements(landmarks: torch.Tensor) -> torch.Tensor:
    from engine.face.placement import placement

    rows = [[placement(p, 0.0, 0.0) for p in run] for run in landmarks.numpy()]
    return torch.from_numpy(np.array(rows))


def test_embeddings_of_another_width_are_refused(drawn: Path) -> None:
    with pytest.raises(DataError, match="face_embedding"):
        data(drawn, embedding=128)
    with pytest.raises(DataError, match="more than 9 frames"):
        data(drawn, frames=9)


def test_a_whole_picture_makes_both_masked_losses_the_same(drawn: Path) -> None:
    made = system()
    batch = data(drawn, frames=1).batch(2, (3,))
    losses = {}
    for target in ("restore", "printed"):
        for hidden in (False, True):
            mask = torch.ones_like(batch.mask)
            if hidden:
                mask[:, :, : SIDE // 2] = 0
            settings = StageSettings(
                masked_target=target, text_dropout=0, identity_dropout=0, both_dropout=0
            )
            torch.manual_seed(0)
            with torch.no_grad():
                loss = StageLoss(made, "identity", settings)(dataclasses.replace(batch, mask=mask))
            losses[target, hidden] = float(loss)
    assert losses["restore", False] == pytest.approx(losses["printed", False], rel=1e-5)
    assert losses["restore", True] != pytest.approx(losses["printed", True], rel=1e-6)


def test_dropout_empties_words_and_embeddings(drawn: Path) -> None:
    made = system()
    batch = data(drawn).batch(3, (0,))
    with torch.no_grad():
        whole = made.conditions(batch)
        rows = torch.tensor([True, False, False])
        dropped = made.conditions(batch, rows, ~rows)
        nobody = made.model.identify(torch.zeros_like(batch.embeddings))
    assert whole.identity is not None
    assert dropped.identity is not None
    assert not torch.equal(dropped.text[0], whole.text[0])
    assert torch.equal(dropped.text[1:], whole.text[1:])
    assert torch.equal(dropped.identity[0], whole.identity[0])
    torch.testing.assert_close(dropped.identity[1:], nobody[1:])


@pytest.mark.parametrize("modules", ["none", "v2"])
def test_checkpointing_computes_the_same_gradient(drawn: Path, modules: str) -> None:
    batch = data(drawn).batch(2, (0,))
    gradients = []
    for checkpointing in (False, True):
        made = system(motion_modules=modules, motion_window=1)
        if checkpointing:
            made.model.unet.unet.enable_gradient_checkpointing()
            made.model.animate.net.enable_gradient_checkpointing()
        made.train()
        torch.manual_seed(0)
        StageLoss(made, "joint", StageSettings(cold=0.0))(batch).backward()
        gradients.append(
            {n: p.grad for n, p in made.model.named_parameters() if p.grad is not None}
        )
    plain, saved = gradients
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, saved[name], rtol=1e-4, atol=1e-6)


def test_a_roll_out_is_what_the_live_engine_draws(drawn: Path) -> None:
    """Two frames through the frame cache, by training's code and by the engine's picture part."""
    from types import SimpleNamespace

    from engine.render.sd15_networks import BASE_PROMPT, FrameNetworks
    from engine.render.sd15_sampling import Sampling
    from engine.render.together import together

    assert BASE_PROMPT == PROMPT
    made = system()
    with torch.no_grad():  # away from the zeros that caches and guidance start from
        for parameter in made.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = data(drawn).batch(1, (5,))
    noise = torch.randn(1, 4, SIDE // 8, SIDE // 8)
    live = FrameNetworks(
        made.model, Sampling(num_inference_steps=2), tokenise=made.tokenise, depth=DEPTH
    )
    with torch.no_grad():
        told = made.conditions(batch)
        face = SimpleNamespace(
            identity=told.identity, reference=told.reference, weight=None, nobody=None
        )
        shot = SimpleNamespace(noise=SimpleNamespace(start=noise, seed=0), index=0, steps=0)
        before, keys = None, None
        for frame in range(2):
            guide = made.guidance(batch, frame, cold=frame == 0)
            ours, before = made.denoise(noise, 2, told, guide, before)
            model = live.frame_model(face, guide, told.text, keys)  # type: ignore[arg-type]
            [theirs] = together(live.step, [live.sample(model, shot)])  # type: ignore[arg-type]
            keys = model.keys
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        alone, _ = made.denoise(noise, 2, told, guide, None)
    assert not torch.allclose(alone, ours, atol=1e-4), "the cache is looked at"


def test_clips_know_their_people(drawn: Path) -> None:
    clips = load_clips(drawn)
    assert len({c.card.person for c in clips}) == 8
    assert isinstance(clips[0], Clip)
