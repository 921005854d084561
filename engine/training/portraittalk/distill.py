"""A few-step student by roll-out: `portraittalk distill --config C`.

The student makes a run of frames in 1 to 4 steps each, with the sampler and the frame cache of
inference; every frame starts from the caches the one before really left, noised a little. The
gradient goes through the last step of the last frame. That frame is decoded with the deployed tiny
decoder and compared with the filmed one: L1, a perceptual distance, both of the mouth too, a patch
discriminator that sees the drawn landmarks, and, if asked for, distribution matching (arXiv 2405.14867) with the teacher
as the real score. One roll-out in ten is a single frame: a cold start.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import DataError
from engine.nets.conditions import Conditions, Guidance
from engine.nets.portraittalk import Caches
from engine.training.checkpoints import RunningMean
from engine.training.mouth_crop import mouth_crop
from engine.training.portraittalk.card import run_card
from engine.training.portraittalk.dataset import TalkBatch, TalkData
from engine.training.portraittalk.diffusion_loss import STEPS, epsilon_loss
from engine.training.portraittalk.patch_judge import PatchJudge
from engine.training.portraittalk.roll_out import RollOut, fixed_roll_out
from engine.training.portraittalk.stage_checkpoint import read_stage, restore, save_stage
from engine.training.portraittalk.stage_config import DistillSettings
from engine.training.portraittalk.stage_trainer import ROWS, choose, set_rate, sheet
from engine.training.portraittalk.stages import trained_names
from engine.training.portraittalk.system import TalkingSystem, detached

DMD_TIMES = (20, 980)  # where both scores are asked


class DistillTrainer:
    """One run of distillation: student, discriminator, and a fake score for distribution matching."""

    def __init__(
        self,
        system: TalkingSystem,
        settings: DistillSettings,
        data: TalkData,
        held_out: TalkData,
        accelerator: Accelerator,
        perceptual: nn.Module | None,
    ) -> None:
        self.settings, self.data = settings, data
        self.accelerator, self.system = accelerator, system
        self.step = 0
        device = accelerator.device
        matching = settings.distribution_matching > 0
        self.teacher = copy.deepcopy(system).requires_grad_(False).to(device) if matching else None
        fake = copy.deepcopy(system) if matching else None
        names = trained_names(system.model, "joint", settings)
        choose(system, names, checkpointing=settings.gradient_checkpointing)
        system.to(device)
        self.perceptual = None if perceptual is None else perceptual.to(device)
        self.trained = {n: system.model.get_parameter(n) for n in names}
        self.roll, self.optimiser = accelerator.prepare(
            RollOut(system, settings), _adamw(self.trained.values(), settings, settings.rate)
        )
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            judge = PatchJudge()
        self.judge, self.judge_optimiser = accelerator.prepare(
            judge, torch.optim.AdamW(judge.parameters(), settings.judge_rate, (0.5, 0.9))
        )
        self.fake: Any = None
        self.fake_optimiser: Any = None
        if fake is not None:
            choose(fake, names, checkpointing=settings.gradient_checkpointing)
            fake.to(device)
            self.fake = fake
            self._fake_parameters = [fake.model.get_parameter(n) for n in names]
            self.fake_optimiser = accelerator.prepare(
                _adamw(self._fake_parameters, settings, settings.fake_rate)
            )
        self.mean = RunningMean(self.trained, settings.ema)
        self.fixed = held_out.fixed(settings.samples).to(device)

    def train_step(self) -> dict[str, float]:
        """One update of the student, then of the discriminator and the fake score."""
        s = self.settings
        rate = set_rate(self.optimiser, s, self.step)
        seed = (s.seed, self.step, self.accelerator.process_index)
        size = max(1, s.batch // self.accelerator.num_processes)
        batch = self.data.batch(size, seed).to(self.accelerator.device)
        torch.manual_seed(int(np.random.RandomState(list(seed)).randint(2**31)))
        with self.accelerator.autocast():
            z, made, told, guide, before = self.roll(batch)
        made, real = made.float(), batch.frames[:, -1]
        losses = self._compare(made, real, batch.landmarks[:, -1])
        total = losses["l1"] + s.perceptual_weight * losses["perceptual"]
        total = total + s.mouth * (
            losses["mouth"] + s.perceptual_weight * losses["mouth_perceptual"]
        )
        judging = s.adversarial > 0 and self.step >= s.adversarial_from
        if judging:
            fooled = -self.judge(made, guide.image).mean()
            total = total + s.adversarial * fooled
        if self.fake is not None:
            still = detached(told)
            losses["matching"] = self._match(z, batch, still, guide, before)
            total = total + s.distribution_matching * losses["matching"]
        self.accelerator.backward(total)
        norm = self.accelerator.clip_grad_norm_(list(self.trained.values()), s.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        values = {n: float(v.detach()) for n, v in losses.items()}
        if judging:
            values["judge"] = self._judge_step(made.detach(), real, guide.image)
        if self.fake is not None:
            values["fake"] = self._fake_steps(z.detach(), detached(told), guide, before)
        self.mean.update(self.step)
        self.step += 1
        return {"loss": float(total.detach()), **values, "gradient": float(norm), "rate": rate}

    def _compare(self, made: Tensor, real: Tensor, landmarks: Tensor) -> dict[str, Tensor]:
        side = max(32, made.shape[-1] // 4)
        mouth, wanted = (mouth_crop(x, landmarks, side) for x in (made, real))
        return {
            "l1": F.l1_loss(made, real),
            "perceptual": self._distance(made, real),
            "mouth": F.l1_loss(mouth, wanted),
            "mouth_perceptual": self._distance(mouth, wanted),
        }

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        if self.perceptual is None:
            return a.new_zeros(())
        distance: Tensor = self.perceptual(a, b).mean()
        return distance

    def _match(
        self,
        z: Tensor,
        batch: TalkBatch,
        told: Conditions,
        guide: Guidance,
        before: Caches | None,
    ) -> Tensor:
        """DMD: a squared error whose gradient is the difference of the two scores.

        The teacher has its own conditions and the filmed frame as its history, the fake score what
        the student had (arXiv 2602.07449).
        """
        assert self.teacher is not None, "it is built together with the fake score"
        schedule, fake = self.system.schedule, self.fake
        with torch.no_grad():
            own = self.teacher.conditions(batch)
            filmed = self.teacher.encode(batch.frames[:, -2])
            low = torch.full((len(z),), DMD_TIMES[0], device=z.device)
            earlier = schedule.add(filmed, torch.randn_like(filmed), low)
            guided = self.teacher.guidance(batch, -2)
            _, history = self.teacher.evaluate(earlier, low, own, guided, None)
            t = torch.randint(*DMD_TIMES, (len(z),), device=z.device)
            z_t = schedule.add(z, torch.randn_like(z), t)
            real = schedule.clean(z_t, self.teacher.evaluate(z_t, t, own, guide, history)[0], t)
            made = schedule.clean(z_t, fake.evaluate(z_t, t, told, guide, before)[0], t)
            scale = (z - real).abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-4)
            aim = z - (made - real) / scale
        return 0.5 * F.mse_loss(z, aim)

    def _judge_step(self, made: Tensor, real: Tensor, drawn: Tensor) -> float:
        gap = (
            F.relu(1 - self.judge(real, drawn)).mean() + F.relu(1 + self.judge(made, drawn)).mean()
        )
        self.judge_optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(gap)
        self.judge_optimiser.step()
        return float(gap.detach())

    def _fake_steps(
        self, z: Tensor, told: Conditions, guide: Guidance, before: Caches | None
    ) -> float:
        """The fake score follows the student: epsilon-MSE on what the student just made."""
        net, last = self.fake, 0.0
        for _ in range(self.settings.fake_updates):
            t = torch.randint(0, STEPS, (len(z),), device=z.device)
            noise = torch.randn_like(z)
            with self.accelerator.autocast():
                eps, _ = net.evaluate(self.system.schedule.add(z, noise, t), t, told, guide, before)
                loss = epsilon_loss(eps, noise, torch.ones(len(z), device=z.device))
            self.fake_optimiser.zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
            for parameter in self._fake_parameters:  # it is not called through a wrapper
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
            self.fake_optimiser.step()
            last = float(loss.detach())
        return last

    def save(self, path: Path) -> None:
        """Write what a resumed run needs, and the student's weights, into a folder."""
        if self.accelerator.is_main_process:
            card = run_card(self.system, "distill", self.settings, self.step, self.trained)
            save_stage(path, self.trained, self.mean, self.optimiser, card, self._state())
        self.accelerator.wait_for_everyone()

    def _state(self) -> dict[str, Any]:
        more: dict[str, Any] = {
            "step": self.step,
            "judge": self.accelerator.unwrap_model(self.judge).state_dict(),
            "judge_optimiser": self.judge_optimiser.state_dict(),
        }
        if self.fake is not None:
            fake = self.fake.model
            more["fake"] = {n: fake.get_parameter(n).detach() for n in self.trained}
            more["fake_optimiser"] = self.fake_optimiser.state_dict()
            assert self.teacher is not None, "it is built together with the fake score"
            more["teacher"] = {
                n: self.teacher.model.get_parameter(n).detach() for n in self.trained
            }
        return more

    def load(self, path: Path) -> None:
        """Go on where the folder `path` was saved.

        Raises:
            DataError: it holds other weights than these settings train, or is damaged.
        """
        state = read_stage(path, self.trained)
        if ("fake" in state) != (self.fake is not None):
            raise DataError(f"{path} was made with another distribution_matching")
        self.step = restore(state, self.trained, self.mean, self.optimiser)
        self.accelerator.unwrap_model(self.judge).load_state_dict(state["judge"])
        self.judge_optimiser.load_state_dict(state["judge_optimiser"])
        if self.fake is not None and self.teacher is not None:
            fake = self.fake.model
            with torch.no_grad():
                for name in self.trained:
                    fake.get_parameter(name).copy_(state["fake"][name])
                    self.teacher.model.get_parameter(name).copy_(state["teacher"][name])
            self.fake_optimiser.load_state_dict(state["fake_optimiser"])

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """L1 of the last frame of fixed roll-outs: the mean of one step and of all steps."""
        real = self.fixed.frames[:, -1]
        made = [
            fixed_roll_out(self.system, self.fixed, n)[-1] for n in (1, self.settings.student_steps)
        ]
        return float(np.mean([float(F.l1_loss(m, real)) for m in made]))

    @torch.no_grad()
    def samples(self) -> NDArray[np.uint8]:
        """A sheet (rows * S, 5 * S, 3), a sample a row.

        Reference, drawn landmarks, the frame in one step and in all steps, and the filmed frame.
        """
        self.mean.swap()
        batch = self.fixed.rows(ROWS)
        drawn = self.system.guidance(batch, -1).image * 2 - 1
        made = [fixed_roll_out(self.system, batch, n)[-1] for n in (1, self.settings.student_steps)]
        self.mean.swap()
        return sheet([batch.references[:, 0], drawn, *made, batch.frames[:, -1]])


def _adamw(parameters: Any, settings: DistillSettings, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters, rate, (0.9, 0.999), weight_decay=settings.weight_decay, fused=True
    )
