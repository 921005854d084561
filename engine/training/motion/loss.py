"""The loss of the audio-to-motion VAE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.motion.channels import CHANNELS, group_matrix
from engine.nets.motion_vae import Decoded, MotionVae
from engine.training.motion.dataset import Clip

# Channels by rule whose size matters as much as their course.
_FOLLOWED = "jawOpen mouthFunnel mouthPucker mouthStretch mouthRollLower mouthPress mouthLowerDown"
FOLLOWED = [CHANNELS.index(name) for name in f"{_FOLLOWED} mouthUpperUp".split()]
WARM = 12  # frames of a piece whose answers do not count


def loss_of(
    model: MotionVae, batch: dict[str, Tensor], spread: dict[str, Tensor], kl: float
) -> dict[str, Tensor]:
    """Parts of the loss: the answers decoded from prior and posterior, their KL, and the energy.

    An answer's part is the error of its channels and of their changes in time, that of the
    animators' columns, and how well the mouths are followed: those by rule channel by channel, those of
    the animators in the sums that they agree on.

    Args:
        batch: see `engine.training.motion.examples.batch_of`.
        spread: see `spreads`.
    """
    posterior, prior, gap = model.learn(batch["features"], batch["real"][:, None], batch["mouth"])
    real = batch["real"][:, None, None]
    scale = spread["mouth_var"][batch["real"].long()][:, None]
    animated, groups = batch["real"] > 0, torch.from_numpy(group_matrix())
    sums = (batch["mouth"] @ groups)[animated, WARM:]
    ruled = batch["mouth"][~animated][:, WARM:, FOLLOWED]
    moving = (ruled != 0).flatten(0, 1).any(0)

    def miss(answer: Decoded) -> Tensor:
        error = (answer.channels - batch["mouth"])[:, WARM:]
        channels = (error**2 / scale).mean()
        motion = (error.diff(dim=1) ** 2 / scale).mean()
        apart = (answer.columns - batch["columns"]) ** 2 / spread["columns_var"] * real
        columns = apart[:, WARM:].mean() / real.mean().clamp_min(0.05)
        agreed = concordance((answer.channels @ groups)[animated, WARM:], sums)
        followed = concordance(answer.channels[~animated][:, WARM:, FOLLOWED], ruled)
        astray = ((1 - followed) * moving).sum() / moving.sum().clamp_min(1)
        return channels + 0.2 * motion + columns + 3 * (1 - agreed).mean() + 3 * astray

    energy = ((prior.energy[..., 0] - batch["energy"])[:, WARM:] ** 2).mean()
    return {
        "prior": miss(prior),
        "posterior": 0.3 * miss(posterior),
        "kl": kl * gap,
        "energy": energy,
    }


def concordance(a: Tensor, b: Tensor) -> Tensor:
    """Lin's concordance of two tracks (B, T, N), one by one (N,) (Biometrics 45, 1989); 0 of nothing.

    Unlike a squared error it does not reward answers that keep to the mean.
    """
    a, b = a.flatten(0, 1), b.flatten(0, 1)
    if not len(a):
        return a.new_zeros(a.shape[1])
    near, far = a - a.mean(0), b - b.mean(0)
    apart = (a.mean(0) - b.mean(0)) ** 2
    return 2 * (near * far).mean(0) / ((near**2).mean(0) + (far**2).mean(0) + apart + 1e-4)


def spreads(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Variance of the channels by rule and as animated (2, channels), and of the columns (28,)."""
    by_source = [
        np.concatenate([c.mouth for c in clips if c.real == real]).var(0) for real in (False, True)
    ]
    columns = np.concatenate([c.columns for c in clips]).var(0)
    return {
        "mouth_var": torch.tensor(np.maximum(by_source, 3e-4)).float(),
        "columns_var": torch.tensor(np.maximum(columns, 3e-4)).float(),
    }
