"""A few-step student by roll-out: `portraittalk distill --config C`.

The student makes a run of frames in 1 to 4 steps each, with the sampler and the frame cache of
inference; every frame starts from the caches the one before really left, noised a little. The
gradient goes through the last step of the last frame. That frame is decoded with the deployed tiny
decoder and compared with the filmed one: L1, a perceptual distance, both of the mouth too, a patch
discriminator that sees the drawn landmarks, and, if asked for, distribution matching with the guided
teacher as the real score (`score_matching`). One roll-out in ten is a single frame: a cold start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import DataError
from engine.loaders.lora import fuse_lora
from engine.training.checkpoints import RunningMean
from engine.training.mouth_crop import mouth_crop
from engine.training.portraittalk.card import run_card
from engine.training.portraittalk.dataset import TalkData
from engine.training.portraittalk.patch_judge import PatchJudge
from engine.training.portraittalk.roll_out import RollOut, fixed_roll_out
from engine.training.portraittalk.score_matching import Made, ScoreMatching
from engine.training.portraittalk.stage_checkpoint import read_stage, restore, save_stage
from engine.training.portraittalk.stage_config import DistillSettings
from engine.training.portraittalk.stage_trainer import ROWS, choose, set_rate, sheet
from engine.training.portraittalk.stages import trained_names
from engine.training.portraittalk.system import TalkingSystem, detached


class DistillTrainer:
    """One run of distillation: student, discriminator, and what matches distributions.

    Args:
        few_step: LoRA of few steps (LCM, TCD, Hyper-SD) that the student begins with.
    """

    def __init__(
        self,
        system: TalkingSystem,
        settings: DistillSettings,
        data: TalkData,
        held_out: TalkData,
        accelerator: Accelerator,
        perceptual: nn.Module | None,
        few_step: Path | None = None,
    ) -> None:
        self.settings, self.data = settings, data
        self.accelerator, self.system = accelerator, system
        self.step = 0
        device = accelerator.device
        names = trained_names(system.model, "joint", settings)
        self.matching = (
            ScoreMatching(system, names, settings, accelerator)
            if settings.distribution_matching > 0
            else None
        )
        if few_step is not None:  # the student alone: teacher and fake score are of many steps
            fuse_lora(system.model.unet.get_submodule("unet"), few_step)
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
        last = Made(z, detached(told), guide, before)
        if self.matching is not None:
            losses |= self.matching.losses(last, batch)
            total = total + s.distribution_matching * losses["matching"]
            if "feature_fooled" in losses:
                total = total + s.score_adversarial * losses["feature_fooled"]
        self.accelerator.backward(total)
        norm = self.accelerator.clip_grad_norm_(list(self.trained.values()), s.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        values = {n: float(v.detach()) for n, v in losses.items()}
        if judging:
            values["judge"] = self._judge_step(made.detach(), real, guide.image)
        if self.matching is not None:
            values |= self.matching.follow(last, self.system.encode(real))
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

    def _judge_step(self, made: Tensor, real: Tensor, drawn: Tensor) -> float:
        gap = (
            F.relu(1 - self.judge(real, drawn)).mean() + F.relu(1 + self.judge(made, drawn)).mean()
        )
        self.judge_optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(gap)
        self.judge_optimiser.step()
        return float(gap.detach())

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
        if self.matching is not None:
            more |= self.matching.state()
        return more

    def load(self, path: Path) -> None:
        """Go on where the folder `path` was saved.

        Raises:
            DataError: it holds other weights than these settings train, or is damaged.
        """
        state = read_stage(path, self.trained)
        if ("fake" in state) != (self.matching is not None):
            raise DataError(f"{path} was made with another distribution_matching")
        self.step = restore(state, self.trained, self.mean, self.optimiser)
        self.accelerator.unwrap_model(self.judge).load_state_dict(state["judge"])
        self.judge_optimiser.load_state_dict(state["judge_optimiser"])
        if self.matching is not None:
            self.matching.load(state)

    def held_out(self) -> dict[str, float]:
        """What is held out, by name."""
        return {"held_out": self.held_out_loss()}

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
