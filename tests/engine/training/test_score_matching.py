"""Distribution matching: its gradient by hand, its guided teacher, and the judge on features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from engine.errors import ConfigError
from engine.nets.sd15_config import Sd15Config
from engine.training.portraittalk.distill import DistillTrainer
from engine.training.portraittalk.score_matching import (
    TIMES,
    Made,
    ScoreMatching,
    matching_loss,
)
from engine.training.portraittalk.stage_config import DistillSettings, run_config
from engine.training.portraittalk.system import TalkingSystem
from tests.engine.loaders.layouts import lcm_lora, random, save
from tests.engine.training.stage_runs import SIDE, config_file, data, run, system

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("one_thread")]
NAMES = ["unet.unet.conv_in.weight", "unet.unet.conv_out.weight"]


def settings(**changes: Any) -> DistillSettings:
    how = {"distribution_matching": 1.0, "fake_updates": 1, "perceptual": "none"}
    return DistillSettings(**{**how, "batch": 2, "frames": 2, "samples": 1, **changes})


def stirred() -> TalkingSystem:
    made = system()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return made


def rolled_out(made: TalkingSystem, batch: Any) -> Made:
    with torch.no_grad():
        told, guide = made.conditions(batch), made.guidance(batch, -1)
        noise = torch.randn(len(batch.frames), 4, SIDE // 8, SIDE // 8)
        z, before = made.denoise(noise, 1, told, guide, None)
    return Made(z.requires_grad_(True), told, guide, before)


def test_the_gradient_is_that_of_the_paper_by_hand() -> None:
    """arXiv 2405.14867: (fake - real) / mean |z - real| of each sample, numbers chosen to see through."""
    z = torch.tensor([[1.0, 3.0], [10.0, 10.0]]).view(2, 1, 1, 2).requires_grad_(True)
    real = torch.tensor([[0.0, 1.0], [6.0, 4.0]]).view(2, 1, 1, 2)
    fake = torch.tensor([[2.0, 1.0], [6.0, 9.0]]).view(2, 1, 1, 2)
    matching_loss(z, real, fake).backward()
    by_hand = torch.tensor([[2 / 1.5, 0.0], [0.0, 5 / 5.0]]).view(2, 1, 1, 2) / z.numel()
    torch.testing.assert_close(z.grad, by_hand)
    same = real.clone().requires_grad_(True)
    matching_loss(same, real, real).backward()
    assert not same.grad.any()


@pytest.mark.parametrize("scale", [1.0, 0.0, 3.0])
def test_the_real_score_is_the_guided_teacher_with_the_filmed_history(
    scale: float, drawn: Path
) -> None:
    made = stirred()
    batch = data(drawn).batch(2, (0,))
    last = rolled_out(made, batch)
    matching = ScoreMatching(made, NAMES, settings(teacher_guidance=scale), Accelerator(cpu=True))
    with torch.no_grad():
        matching.fake.model.get_parameter(NAMES[0]).add_(0.1)
    torch.manual_seed(5)
    loss = matching.losses(last, batch)["matching"]
    loss.backward()

    torch.manual_seed(5)
    with torch.no_grad():
        t = torch.randint(*TIMES, (2,))
        z_t = made.schedule.add(last.z, torch.randn_like(last.z), t)
        filmed, low = made.encode(batch.frames[:, -2]), torch.full((2,), TIMES[0])
        earlier = made.schedule.add(filmed, torch.randn_like(filmed), low)
        _, history = made.evaluate(earlier, low, last.told, made.guidance(batch, -2), None)
        real, _ = made.evaluate(z_t, t, last.told, last.guide, history)
        if scale == 3.0:
            nobody = made.model.identify(torch.zeros_like(batch.embeddings))
            wordless = made.model.read(made.tokenise(["", ""]))
            untold = dataclasses.replace(last.told, text=wordless, identity=nobody)
            without, _ = made.evaluate(z_t, t, untold, last.guide, history)
            assert (without - real).abs().max() > 1e-4
            real = without + 3.0 * (real - without)
        fake, _ = matching.fake.evaluate(z_t, t, last.told, last.guide, last.before)
        clean_real, clean_fake = (made.schedule.clean(z_t, eps, t) for eps in (real, fake))
        scale_of = (last.z - clean_real).abs().mean((1, 2, 3), keepdim=True)
        by_hand = (clean_fake - clean_real) / scale_of / last.z.numel()
    torch.testing.assert_close(last.z.grad, by_hand, rtol=1e-3, atol=1e-6)
    assert by_hand.abs().max() > 0


def test_both_scores_are_computed_in_the_precision_of_the_run(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stirred()
    batch = data(drawn).batch(1, (0,))
    last = rolled_out(made, batch)
    accelerator = Accelerator(cpu=True)
    half = lambda: torch.autocast("cpu", torch.bfloat16)
    monkeypatch.setattr(accelerator, "autocast", half)
    how = settings(teacher_guidance=2.0, score_adversarial=0.1)
    matching = ScoreMatching(made, NAMES, how, accelerator)
    seen: list[bool] = []
    evaluate = TalkingSystem.evaluate

    def watched(self: TalkingSystem, *told: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return evaluate(self, *told)

    monkeypatch.setattr(TalkingSystem, "evaluate", watched)
    losses = matching.losses(last, batch)
    matching.follow(last, made.encode(batch.frames[:, -1]))
    assert len(seen) == 5 + 3
    assert all(seen)
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_the_judge_learns_what_is_filmed_and_the_student_learns_from_it(drawn: Path) -> None:
    made = stirred()
    batch = data(drawn).batch(2, (0,))
    last = rolled_out(made, batch)
    last = dataclasses.replace(last, z=(3 * last.z.detach()).requires_grad_(True))
    filmed = made.encode(batch.frames[:, -1])
    how = settings(score_adversarial=1.0, fake_rate=3e-3, fake_updates=12)
    matching = ScoreMatching(made, NAMES, how, Accelerator(cpu=True))
    before = {n: p.detach().clone() for n, p in matching.fake.model.named_parameters()}
    torch.manual_seed(0)
    values = matching.follow(last, filmed)
    assert values["feature_judge"] < 1.3, "two coin tosses are 1.39"
    changed = {
        n for n, p in matching.fake.model.named_parameters() if not torch.equal(p, before[n])
    }
    assert changed == set(NAMES), "only what is to learn does"
    teacher = dict(matching.teacher.model.named_parameters())
    assert all(torch.equal(teacher[n], before[n]) for n in NAMES)
    losses = matching.losses(last, batch)
    losses["feature_fooled"].backward()
    assert last.z.grad is not None
    assert last.z.grad.abs().max() > 0


def test_a_student_begins_with_a_few_step_lora_and_its_teacher_does_not(
    drawn: Path, tmp_path: Path
) -> None:
    made = system()
    lora = random(lcm_lora(Sd15Config.small().unet, 2), 0)
    path = save(lora, tmp_path / "lora.safetensors")
    clips = data(drawn)
    trainer = DistillTrainer(made, settings(), clips, clips, Accelerator(cpu=True), None, path)
    name = "unet.unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    plain: Tensor = system().model.get_parameter(name)
    assert trainer.matching is not None
    assert not torch.equal(trainer.system.model.get_parameter(name), plain)
    for still in (trainer.matching.teacher, trainer.matching.fake):
        assert torch.equal(still.model.get_parameter(name), plain)


def test_what_cannot_be_distilled_so_is_refused(drawn: Path, tmp_path: Path) -> None:
    for table, words in (
        ({"teacher_guidance": 99.0}, "teacher_guidance=99"),
        ({"score_adversarial": 0.1}, "distribution_matching goes with it"),
        ({"begin_with": "lcm-lora"}, 'size = "full"'),
        ({"begin_with": "lcm-lora", "weights": "new"}, 'weights = "all"'),
        ({"begin_with": "turbo"}, "one of ''"),
    ):
        raw = {"run": "r", "data": {"clips": "c"}, "model": {"size": "small"}, "distill": table}
        with pytest.raises(ConfigError, match=words):
            run_config(raw, tmp_path)
    plain = {"text_dropout": 0.0, "identity_dropout": 0.0, "both_dropout": 0.0, "steps": 1}
    guided = {"distribution_matching": 0.5, "teacher_guidance": 3.5}
    path = config_file(tmp_path, drawn, train=plain, distill=guided)
    run(path, "joint")
    with pytest.raises(ConfigError, match="nothing to guide from; use 1, or train"):
        run(path, "distill")
