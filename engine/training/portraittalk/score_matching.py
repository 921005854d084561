"""Distribution matching with two scores and a judge on their features (DMD2, arXiv 2405.14867).

The real score is the teacher's, with classifier-free guidance. The fake score follows what the student
makes. The judge reads the fake score's middle features of noised latents, the student's or filmed
ones; it learns with them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from engine.nets.conditions import Conditions, Guidance
from engine.nets.portraittalk import Caches
from engine.training.portraittalk.dataset import TalkBatch
from engine.training.portraittalk.diffusion_loss import STEPS, epsilon_loss
from engine.training.portraittalk.stage_config import DistillSettings
from engine.training.portraittalk.stage_trainer import choose
from engine.training.portraittalk.system import TalkingSystem

TIMES = (20, 980)  # where both scores are asked
LEAST_SCALE = 1e-4


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """The last frame of a roll-out, and what it was made with."""

    z: Tensor  # (B, 4, h, w)
    told: Conditions
    guide: Guidance
    before: Caches | None

    def still(self) -> Made:
        """The same without a gradient in the latents."""
        return dataclasses.replace(self, z=self.z.detach())


def matching_loss(z: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """A loss () whose gradient in z is (fake - real) / mean |z - real|, over the numbers in z.

    Args:
        z: latents (B, 4, h, w) of the student.
        real: the clean latents that the real score sees behind z with noise; `fake`: those of the
            fake score. Both like z.
    """
    scale = (z - real).abs().mean((1, 2, 3), keepdim=True).clamp(min=LEAST_SCALE)
    aim = z - (fake - real) / scale
    return 0.5 * F.mse_loss(z, aim.detach())


class FeatureJudge(nn.Module):
    """How real noised latents look, by the middle features of a score.

    Shapes:
        in: features (B, C, h, w). out: scores (B,).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(min(32, channels // 4), channels),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Score them."""
        scores: Tensor = self.body(features.float())
        return scores.flatten().float()


@contextmanager
def middle_features(system: TalkingSystem) -> Iterator[list[Tensor]]:
    """Gathers what the UNet's middle block gives, (B, C, h, w) an evaluation, meanwhile."""
    kept: list[Tensor] = []
    middle: Any = system.model.unet.unet.mid_block
    hook = middle.register_forward_hook(lambda _, __, out: kept.append(out))
    try:
        yield kept
    finally:
        hook.remove()


class ScoreMatching:
    """Teacher, fake score and judge of one distillation.

    Args:
        names: weights of the fake score that learn.
    """

    def __init__(
        self,
        system: TalkingSystem,
        names: list[str],
        settings: DistillSettings,
        accelerator: Accelerator,
    ) -> None:
        self.settings, self.accelerator, self.names = settings, accelerator, names
        self.schedule = system.schedule
        self.teacher = copy.deepcopy(system).requires_grad_(False).to(accelerator.device)
        self.fake = copy.deepcopy(system)
        choose(self.fake, names, checkpointing=settings.gradient_checkpointing)
        self.fake.to(accelerator.device)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed + 1)
            judge = FeatureJudge(system.model.config.unet.block_out_channels[-1])
        self.judge = judge.to(accelerator.device)
        self._learning = [self.fake.model.get_parameter(n) for n in names]
        self._learning += list(self.judge.parameters())
        self.optimiser = accelerator.prepare(
            torch.optim.AdamW(
                self._learning, settings.fake_rate, weight_decay=settings.weight_decay
            )
        )

    def losses(self, made: Made, batch: TalkBatch) -> dict[str, Tensor]:
        """What the student learns by: the difference of the scores, and to pass for filmed."""
        z, size = made.z, len(made.z)
        with self.accelerator.autocast():
            with torch.no_grad():
                t = torch.randint(*TIMES, (size,), device=z.device)
                z_t = self.schedule.add(z, torch.randn_like(z), t)
                real = self.schedule.clean(z_t, self._real_score(z_t, t, made, batch), t)
                eps, _ = self.fake.evaluate(z_t, t, made.told, made.guide, made.before)
                fake = self.schedule.clean(z_t, eps, t)
            losses = {"matching": matching_loss(z.float(), real.float(), fake.float())}
            if self.settings.score_adversarial > 0:
                losses["feature_fooled"] = F.softplus(-self._judged(made)).mean()
        return losses

    def _real_score(self, z_t: Tensor, t: Tensor, made: Made, batch: TalkBatch) -> Tensor:
        """The teacher's noise (B, 4, h, w), guided; its history is the filmed frame before.

        The fake score has what the student had (arXiv 2602.07449).
        """
        teacher, scale = self.teacher, self.settings.teacher_guidance
        told = teacher.conditions(batch)
        filmed = teacher.encode(batch.frames[:, -2])
        low = torch.full((len(z_t),), TIMES[0], device=z_t.device)
        earlier = self.schedule.add(filmed, torch.randn_like(filmed), low)
        _, history = teacher.evaluate(earlier, low, told, teacher.guidance(batch, -2), None)
        with_all, _ = teacher.evaluate(z_t, t, told, made.guide, history)
        if scale in (0.0, 1.0):
            return with_all
        without, _ = teacher.evaluate(z_t, t, self._untold(batch, told), made.guide, history)
        return without + scale * (with_all - without)

    def _untold(self, batch: TalkBatch, told: Conditions) -> Conditions:
        """The same portraits without words and identity, as inference guides."""
        everybody = torch.ones(len(batch.frames), dtype=torch.bool, device=batch.frames.device)
        nothing = self.teacher.conditions(batch, everybody, everybody)
        return dataclasses.replace(told, text=nothing.text, identity=nothing.identity)

    def _judged(self, made: Made) -> Tensor:
        """The judge's scores (B,) of latents with noise."""
        z = made.z
        t = torch.randint(*TIMES, (len(z),), device=z.device)
        with middle_features(self.fake) as features:
            z_t = self.schedule.add(z, torch.randn_like(z), t)
            self.fake.evaluate(z_t, t, made.told, made.guide, made.before)
        scores: Tensor = self.judge(features[-1])
        return scores

    def follow(self, made: Made, filmed: Tensor) -> dict[str, float]:
        """Let the fake score follow the student, and the judge tell its frames from filmed ones.

        Args:
            filmed: latents (B, 4, h, w) of the frame that was filmed.
        """
        own, values = made.still(), {}
        for _ in range(self.settings.fake_updates):
            t = torch.randint(0, STEPS, (len(own.z),), device=own.z.device)
            noise = torch.randn_like(own.z)
            with self.accelerator.autocast():
                z_t = self.schedule.add(own.z, noise, t)
                eps, _ = self.fake.evaluate(z_t, t, own.told, own.guide, own.before)
                loss = epsilon_loss(eps, noise, torch.ones(len(t), device=t.device))
                values["fake"] = float(loss.detach())
                if self.settings.score_adversarial > 0:
                    true = self._judged(dataclasses.replace(own, z=filmed))
                    gap = F.softplus(-true).mean() + F.softplus(self._judged(own)).mean()
                    values["feature_judge"] = float(gap.detach())
                    loss = loss + self.settings.score_adversarial * gap
            self._step(loss)
        return values

    def _step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        for parameter in self._learning:  # it is not called through a wrapper
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "fake": {n: self.fake.model.get_parameter(n).detach() for n in self.names},
            "teacher": {n: self.teacher.model.get_parameter(n).detach() for n in self.names},
            "feature_judge": self.judge.state_dict(),
            "fake_optimiser": self.optimiser.state_dict(),
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        for name in self.names:
            self.fake.model.get_parameter(name).copy_(state["fake"][name])
            self.teacher.model.get_parameter(name).copy_(state["teacher"][name])
        self.judge.load_state_dict(state["feature_judge"])
        self.optimiser.load_state_dict(state["fake_optimiser"])
