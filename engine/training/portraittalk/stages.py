"""The paper's stages as losses, and the codec's, which small systems need first.

| stage | learns | loss |
| --- | --- | --- |
| codec | the tiny autoencoder, and the enlarger behind it | L1, latents near zero mean and unit spread |
| identity | IdentityNet and the projection, on masked frames | epsilon-MSE (formula 1) |
| animate | AnimateNet without temporal attention and what attends to it, IdentityNet still | epsilon-MSE (formula 2) |
| joint | both, with the previous frame's keys and values | epsilon-MSE (formula 2) |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.loaders.run_card import Stage
from engine.nets.conditions import Conditions
from engine.nets.portraittalk import Caches
from engine.nets.sd15_config import Sd15Config
from engine.training.portraittalk.dataset import TalkBatch
from engine.training.portraittalk.diffusion_loss import STEPS, epsilon_loss, shifted
from engine.training.portraittalk.stage_config import StageSettings
from engine.training.portraittalk.system import TalkingSystem, noised

NEW = (
    "to_k_ip",
    "to_v_ip",
    "landmarks.",
    "placement.",
    "_tokens.",
    "processor.query",
    "conv_in.more",
    ".motion.",
    ".animation.",
)
NEW_SUFFIX = ("processor.out.weight", "processor.out.bias")
RESTORE_GAMMA = 5.0
HISTORY_STEPS = (1, 50)  # of the samplers whose last step a history may come from: all there are


def frames_of(stage: Stage, config: Sd15Config) -> int:
    """Consecutive frames of a sample: the joint stage has those before that the networks look at."""
    return 1 + max(1, config.remembered) if stage == "joint" else 1


def history_time(share: float) -> int:
    """The last time of a sampler of so many steps, 1 to 50 as `share` goes from 0 to 1."""
    few, many = HISTORY_STEPS
    return round(STEPS / (few * (many / few) ** share)) - 1


def is_new(name: str) -> bool:
    """Whether a parameter is one that Stable Diffusion and ControlNet checkpoints do not hold."""
    return (
        name.startswith(("projection.", "reference_net.", "codec.enlarge."))
        or any(part in name for part in NEW)
        or name.endswith(NEW_SUFFIX)
    )


def is_temporal(name: str) -> bool:
    """Whether a parameter looks at frames before alone: AnimateNet's attention, motion modules."""
    return ".motion." in name or (name.startswith("animate.") and ".attn1.processor." in name)


def is_injection(name: str) -> bool:
    """Whether a parameter is of IdentityNet's attentions to AnimateNet's features."""
    return ".animation." in name


def trained_names(model: nn.Module, stage: Stage, settings: StageSettings) -> list[str]:
    """Names of the parameters that `stage` trains."""
    parts = {
        "codec": ("codec.tiny.", "codec.enlarge."),
        "identity": ("unet.", "projection.", "reference_net."),
        "animate": ("animate.",),
        "joint": ("unet.", "projection.", "reference_net.", "animate."),
    }[stage]
    names = [n for n, _ in model.named_parameters() if n.startswith(parts)]
    if stage == "identity":  # where nothing animates
        names = [n for n in names if not is_injection(n)]
    if stage == "animate":
        names += [n for n, _ in model.named_parameters() if is_injection(n)]
    if stage != "joint":
        names = [n for n in names if not is_temporal(n)]
    if settings.weights == "new":
        new = [n for n in names if is_new(n)]
        names = new if new or stage != "codec" else names
    return names


class StageLoss(nn.Module):
    """The loss of one stage; its `forward` is what a multi-GPU wrapper wraps."""

    def __init__(self, system: TalkingSystem, stage: Stage, settings: StageSettings) -> None:
        super().__init__()
        self.system, self.stage, self.settings = system, stage, settings

    def forward(self, batch: TalkBatch) -> Tensor:
        """The loss () of a batch; random numbers come from torch's own generator."""
        if self.stage == "codec":
            return self._codec(batch.frames[:, -1])
        size, device = len(batch.frames), batch.frames.device
        told = self._told(batch)
        z = self.system.encode(batch.frames[:, -1])
        t = shifted(torch.rand(size, device=device), self.settings.shift)
        noise = torch.randn_like(z)
        if self.stage == "identity":
            return self._identity(batch, told, z, noise, t)
        cold = self.stage == "animate" or bool(torch.rand(()) < self.settings.cold)
        previous = None if cold else self._history(batch, told)
        guide = self.system.guidance(batch, -1, cold=self.stage == "joint" and cold)
        z_t = self.system.schedule.add(z, noise, t)
        eps, _ = self.system.evaluate(z_t, t, told, guide, previous)
        return epsilon_loss(eps, noise, self.weight(t))

    def weight(self, t: Tensor) -> Tensor:
        """What each sample's squared error of noise is weighed by (B,)."""
        s, schedule = self.settings, self.system.schedule
        if s.error == "latents":
            return schedule.latent_weight(t)
        return schedule.weight(t, s.snr_gamma)

    def _codec(self, frames: Tensor) -> Tensor:
        codec = self.system.model.codec
        z = codec.encode(self.system.shrunk(frames), tiny=True)
        painted = codec.decode(z, tiny=True)
        calm = z.mean((0, 2, 3)).square() + (z.std((0, 2, 3)) - 1).square()
        return F.l1_loss(painted, frames) + 0.01 * calm.mean()

    def _told(self, batch: TalkBatch) -> Conditions:
        s = self.settings
        draw = torch.rand(len(batch.frames), device=batch.frames.device)
        both = draw < s.both_dropout
        text = (draw >= s.both_dropout) & (draw < s.both_dropout + s.text_dropout)
        alone = s.both_dropout + s.text_dropout
        identity = (draw >= alone) & (draw < alone + s.identity_dropout)
        return self.system.conditions(batch, both | text, both | identity)

    def _identity(
        self, batch: TalkBatch, told: Conditions, z: Tensor, noise: Tensor, t: Tensor
    ) -> Tensor:
        """Formula (1). As printed, the target is the noise that was added to the masked latents,
        with which a network learns to draw the mask; the paper's words say that the frame is to
        be restored. "restore" therefore wants the noise that leads to the whole frame; it grows
        without bound towards t = 0, so masked samples are weighed by min(snr, 5) / snr.
        """
        schedule, s = self.system.schedule, self.settings
        hidden = self.system.encode(batch.frames[:, -1] * batch.mask)
        z_t = schedule.add(hidden, noise, t)
        eps = self.system.unguided(z_t, t, told, self.system.concat(batch, -1))
        if s.masked_target == "printed":
            return epsilon_loss(eps, noise, self.weight(t))
        masked = batch.mask.mean((1, 2, 3)) < 1
        plain = self.weight(t)
        bounded = plain if s.error == "latents" else schedule.weight(t, RESTORE_GAMMA)
        weight = torch.where(masked, bounded, plain)
        return epsilon_loss(eps, schedule.noise_of(z_t, z, t), weight)

    @torch.no_grad()
    def _history(self, batch: TalkBatch, told: Conditions) -> Caches | None:
        """The cache of one frame before or more, as the last denoising step of each would have left it."""
        last = batch.frames.shape[1] - 1
        first = last - 1 - int(torch.randint(last, ()))
        t = history_time(float(torch.rand(())))
        amount = float(torch.rand(())) * self.settings.history_noise
        return filmed_cache(self.system, batch, told, range(first, last), t, noise=amount)


@torch.no_grad()
def filmed_cache(
    system: TalkingSystem,
    batch: TalkBatch,
    told: Conditions,
    frames: range,
    t: int,
    *,
    noise: float = 0.0,
) -> Caches | None:
    """The cache that filmed `frames` of each run leave, one after the other, at time `t`: (B, n * S, C).

    Args:
        noise: on the keys and values, times their own spread.
    """
    before: Caches | None = None
    for frame in frames:
        z = system.encode(batch.frames[:, frame])
        times = torch.full((len(z),), t, device=z.device)
        z_t = system.schedule.add(z, torch.randn_like(z), times)
        guide = system.guidance(batch, frame)
        _, own = system.evaluate(z_t, times, told, guide, before)
        before = system.model.remember(before, noised(own, noise))
    return before
