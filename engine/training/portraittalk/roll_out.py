"""Frames made one after another through the frame cache, by the sampler of inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.nets.conditions import Conditions, Guidance
from engine.nets.portraittalk import Caches
from engine.training.portraittalk.dataset import TalkBatch
from engine.training.portraittalk.stage_config import DistillSettings
from engine.training.portraittalk.system import Begin, TalkingSystem, detached, noised


class RollOut(nn.Module):
    """Rolls the student out; its `forward` is what a multi-GPU wrapper wraps."""

    def __init__(self, system: TalkingSystem, settings: DistillSettings) -> None:
        super().__init__()
        self.system, self.settings = system, settings

    def forward(self, batch: TalkBatch) -> tuple[Tensor, Tensor, Conditions, Guidance, Any]:
        """Roll out a batch of runs; random numbers come from torch's own generator.

        Returns:
            latents (B, 4, h, w) of the last frame, which carry the gradient, the frame (B, 3, S, S)
            in [-1, 1], then the conditions, guidance and caches it was made with.
        """
        s, system = self.settings, self.system
        told = system.conditions(batch)
        count = batch.frames.shape[1]
        first = count - 1 if bool(torch.rand(()) < s.cold) else 0
        steps = int(torch.randint(1, s.student_steps + 1, ()))
        size = system.latent_shape(len(batch.frames))
        noise = torch.randn(size, device=batch.frames.device)
        before: Caches | None = None
        with torch.no_grad():
            still = detached(told)
            for frame in range(first, count - 1):
                guide = system.guidance(batch, frame, cold=frame == first)
                _, own = system.denoise(noise, steps, still, guide, before)
                own = noised(own, float(torch.rand(())) * s.history_noise)
                before = system.model.remember(before, own)
        guide = system.guidance(batch, -1, cold=first == count - 1)
        z, _ = system.denoise(noise, steps, told, guide, before, gradient=True)
        return z, system.decode(z), told, guide, before


@torch.no_grad()
def fixed_roll_out(
    system: TalkingSystem,
    batch: TalkBatch,
    steps: int,
    *,
    order: Sequence[int] | None = None,
    strength: float | None = None,
) -> list[Tensor]:
    """Frames (B, 3, S, S) of roll-outs from the same noise, decoded.

    Args:
        order: which frames of the batch are shown one after another; each once without it.
        strength: how much of the way every frame but the first is gone from the one before, above 0 to 1;
            without it each begins from noise.
    """
    size = system.latent_shape(len(batch.frames))
    noise = torch.randn(size, generator=torch.Generator().manual_seed(1))
    told = system.conditions(batch)
    before: Caches | None = None
    begin: Begin | None = None
    shown: list[Tensor] = []
    for frame in range(batch.frames.shape[1]) if order is None else order:
        guide = system.guidance(batch, frame, cold=not shown)
        z, own = system.denoise(noise.to(batch.frames), steps, told, guide, before, begin=begin)
        begin = None if strength is None else Begin(z, strength)
        before = system.model.remember(before, own)
        shown.append(system.decode(z))
    return shown
