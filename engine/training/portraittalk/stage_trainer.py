"""Trains one stage: `portraittalk train STAGE --config C`. Run again, it resumes exactly.

Random numbers of a step come from the seed, the step and the process, so nothing of a generator
has to be kept: a checkpoint is weights, their running mean, the optimiser and the step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import DataError
from engine.loaders.run_card import Stage
from engine.nets.portraittalk import Caches
from engine.training.checkpoints import RunningMean
from engine.training.loop import rate_share, set_rates
from engine.training.portraittalk.card import run_card
from engine.training.portraittalk.dataset import TalkBatch, TalkData
from engine.training.portraittalk.diffusion_loss import epsilon_loss, shifted
from engine.training.portraittalk.stage_checkpoint import read_stage, restore, save_stage
from engine.training.portraittalk.stage_config import StageSettings
from engine.training.portraittalk.stages import StageLoss, filmed_cache, trained_names
from engine.training.portraittalk.system import TalkingSystem

CHECKED = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the way to full noise, where the loss is held out
HISTORY_AT = 100  # the timestep whose cache stands for the frame before in it
BETAS = (0.9, 0.999)
ROWS = 8  # of a sheet
RESTORED_AT = 600  # the timestep a masked frame is restored from, to look at


class StageTrainer:
    """One run of one stage: networks, optimiser, running mean and step; saves exactly these.

    Args:
        accelerator: places tensors and spreads the work; `Accelerator(cpu=True)` for small runs.
        clips: data of the training people; `held_out` of others, or the same to see it learn by
            heart.
    """

    def __init__(
        self,
        system: TalkingSystem,
        stage: Stage,
        settings: StageSettings,
        data: TalkData,
        held_out: TalkData,
        accelerator: Accelerator,
    ) -> None:
        self.stage, self.settings, self.data = stage, settings, data
        self.accelerator, self.system = accelerator, system
        self.step = 0
        names = trained_names(system.model, stage, settings)
        if not names:
            raise DataError(f"stage {stage} has nothing to train in this configuration")
        choose(system, names, checkpointing=settings.gradient_checkpointing)
        system.to(accelerator.device)
        self.trained = {n: system.model.get_parameter(n) for n in names}
        optimiser = torch.optim.AdamW(
            self.trained.values(),
            settings.rate,
            BETAS,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.loss, self.optimiser = accelerator.prepare(
            StageLoss(system, stage, settings), optimiser
        )
        self.mean = RunningMean(self.trained, settings.ema)
        self.fixed = held_out.fixed(settings.samples).to(accelerator.device)

    def train_step(self) -> dict[str, float]:
        """One update of the weights."""
        s, ranks = self.settings, self.accelerator.num_processes
        rate = set_rate(self.optimiser, s, self.step)
        size = max(1, s.batch // s.accumulate // ranks)
        total = 0.0
        for part in range(s.accumulate):
            seed = (s.seed, self.step, part, self.accelerator.process_index)
            batch = self.data.batch(size, seed).to(self.accelerator.device)
            torch.manual_seed(int(np.random.RandomState(list(seed)).randint(2**31)))
            with self.accelerator.autocast():
                loss = self.loss(batch) / s.accumulate
            self.accelerator.backward(loss)
            total += float(loss.detach())
        norm = self.accelerator.clip_grad_norm_(list(self.trained.values()), s.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.mean.update(self.step)
        self.step += 1
        return {"loss": total, "gradient": float(norm), "rate": rate}

    def save(self, path: Path) -> None:
        """Write what a resumed run needs, and what the next stage starts from, into a folder."""
        if self.accelerator.is_main_process:
            card = run_card(self.system, self.stage, self.settings, self.step, self.trained)
            save_stage(path, self.trained, self.mean, self.optimiser, card, {"step": self.step})
        self.accelerator.wait_for_everyone()

    def load(self, path: Path) -> None:
        """Go on where the folder `path` was saved.

        Raises:
            DataError: it holds other weights than this stage trains, or is damaged.
        """
        state = read_stage(path, self.trained)
        self.step = restore(state, self.trained, self.mean, self.optimiser)

    def held_out(self) -> dict[str, float]:
        """The loss held out; of the joint stage also without the frames before: what they are worth."""
        loss = {"held_out": self.held_out_loss()}
        return loss | (
            {"held_out_alone": self.held_out_loss(alone=True)} if self.stage == "joint" else {}
        )

    @torch.no_grad()
    def held_out_loss(self, *, alone: bool = False) -> float:
        """The loss on fixed samples, noise and timesteps, nothing dropped: to compare runs.

        Args:
            alone: the joint stage does not look at the frames before, either.
        """
        batch, losses = self.fixed, []
        if self.stage == "codec":
            return float(self.loss(batch))
        told = self.system.conditions(batch)
        z = self.system.encode(batch.frames[:, -1])
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
        previous = None
        if self.stage == "joint" and not alone:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                frames = range(batch.frames.shape[1] - 1)
                previous = filmed_cache(self.system, batch, told, frames, HISTORY_AT)
        for share in CHECKED:
            t = shifted(torch.full((len(z),), share, device=z.device), self.settings.shift)
            z_t = self.system.schedule.add(z, noise, t)
            if self.stage == "identity":
                eps = self.system.unguided(z_t, t, told, self.system.concat(batch, -1))
            else:
                guide = self.system.guidance(batch, -1)
                eps = self.system.evaluate(z_t, t, told, guide, previous)[0]
            weight = self.accelerator.unwrap_model(self.loss).weight(t)
            losses.append(float(epsilon_loss(eps, noise, weight)))
        return float(np.mean(losses))

    @torch.no_grad()
    def samples(self) -> NDArray[np.uint8]:
        """What the running mean makes of the fixed samples, a sample a row: (rows * S, W, 3)."""
        self.mean.swap()
        columns = self._columns(self.fixed.rows(ROWS))
        self.mean.swap()
        return sheet(columns)

    def _columns(self, batch: TalkBatch) -> list[Tensor]:
        last, system = batch.frames[:, -1], self.system
        if self.stage == "codec":
            return [last, system.decode(system.model.codec.encode(system.shrunk(last), tiny=True))]
        noise = torch.randn(
            system.encode(last).shape, generator=torch.Generator().manual_seed(1)
        ).to(last)
        told = system.conditions(batch)
        if self.stage == "identity":
            hidden = system.encode(last * batch.mask)
            t = torch.full((len(last),), RESTORED_AT, device=last.device)
            z_t = system.schedule.add(hidden, noise, t)
            eps = system.unguided(z_t, t, told, system.concat(batch, -1))
            restored = system.decode(system.schedule.clean(z_t, eps, t))
            return [batch.references[:, 0], last * batch.mask, restored, last]
        steps = self.settings.sample_steps
        shown: list[Tensor] = []
        cache: Caches | None = None
        for frame in range(batch.frames.shape[1]):
            guide = system.guidance(batch, frame, cold=self.stage == "joint" and frame == 0)
            made, own = system.denoise(noise, steps, told, guide, cache)
            cache = system.model.remember(cache, own)
            shown.append(system.decode(made))
        drawn = system.guidance(batch, -1).image * 2 - 1
        return [batch.references[:, 0], drawn, *shown, last]


def choose(system: TalkingSystem, names: list[str], *, checkpointing: bool) -> None:
    """Let only `names` learn; keep activations or compute them again."""
    system.requires_grad_(False)
    for name in names:
        system.model.get_parameter(name).requires_grad_(True)
    if checkpointing:
        nets: tuple[Any, ...] = (system.model.unet.unet, getattr(system.model.animate, "net", None))
        for net in nets:
            if net is not None:
                net.enable_gradient_checkpointing()


def set_rate(optimiser: Any, settings: StageSettings, step: int) -> float:
    """Set the learning rate of a step, after its warm-up flat or falling to a tenth; the rate."""
    floor = 1.0 if settings.decay == "none" else 0.1
    share = rate_share(step, settings.steps, warm_up=settings.warm_up, floor=floor)
    set_rates(optimiser, [settings.rate] * len(optimiser.param_groups), share)
    return settings.rate * share


def sheet(columns: list[Tensor]) -> NDArray[np.uint8]:
    """Images side by side, a sample a row: columns of (B, 3, S, S) -> (B * S, n * S, 3).

    Smaller ones are enlarged to the largest.
    """
    side = max(c.shape[-1] for c in columns)
    same = [F.interpolate(c.detach().float().cpu(), (side, side)) for c in columns]
    wide = torch.cat(same, 3).permute(0, 2, 3, 1)
    rows = wide.reshape(-1, wide.shape[2], 3)
    return np.asarray(((rows.clamp(-1, 1) + 1) * 127.5).round().byte())
