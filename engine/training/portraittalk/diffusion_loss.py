"""Stable Diffusion's noise, and the losses of the paper's stages: epsilon-MSE (formulas 1 and 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.diffusion.samplers import make_scheduler

STEPS = 1000


class NoiseSchedule(nn.Module):
    """z_t = a_t z + s_t noise with Stable Diffusion's scaled-linear betas."""

    def __init__(self) -> None:
        super().__init__()
        scheduler = make_scheduler("ddim")
        alphas: Tensor = scheduler.alphas_cumprod
        self.signal: Tensor
        self.spread: Tensor
        self.register_buffer("signal", alphas.sqrt(), persistent=False)
        self.register_buffer("spread", (1 - alphas).sqrt(), persistent=False)

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and s_t (B, 1, 1, 1) of t (B,)."""
        return self.signal[t].view(-1, 1, 1, 1), self.spread[t].view(-1, 1, 1, 1)

    def add(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noised latents (B, 4, h, w)."""
        a, s = self.at(t)
        return a * z + s * noise

    def clean(self, z_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Clean latents (B, 4, h, w) from noised ones and their noise `eps`, at timesteps t (B,)."""
        a, s = self.at(t)
        return (z_t - s * eps) / a

    def noise_of(self, z_t: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """The noise (B, 4, h, w) that leads from `z_t` at timesteps t (B,) back to `z`."""
        a, s = self.at(t)
        return (z_t - a * z) / s

    def weight(self, t: Tensor, gamma: float) -> Tensor:
        """min(snr, gamma) / snr (B,) (arXiv 2303.09556); 1 for `gamma` 0."""
        if gamma <= 0:
            return torch.ones(len(t), device=t.device)
        a, s = self.at(t)
        snr = (a / s).square().flatten()
        return snr.clamp(max=gamma) / snr

    def latent_weight(self, t: Tensor) -> Tensor:
        """1 / snr (B,): a squared error of noise times it is that of the latents it leads to.

        Plain epsilon-MSE hardly sees person and pose: they matter at high noise, where the latents
        can no longer be read off `z_t`, and there they are a small part of the noise.
        """
        a, s = self.at(t)
        return (s / a).square().flatten()


def shifted(share: Tensor, shift: float) -> Tensor:
    """Timesteps (B,) of evenly spread `share` (B,) in [0, 1): `shift` over 1 leans to high noise.

    Stable Diffusion 3's (arXiv 2403.03206): there the image cannot be read off `z_t`, so it is
    where the conditions are learnt, and where few steps are taken.
    """
    return (STEPS * shift * share / (1 + (shift - 1) * share)).long().clamp(max=STEPS - 1)


def epsilon_loss(eps: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error of noise (B, 4, h, w), each sample weighed by `weight` (B,)."""
    return ((eps.float() - wanted).square().mean((1, 2, 3)) * weight).mean()
