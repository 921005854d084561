"""The loss of the painter's networks: the codec first, then ReferenceNet, AnimateNet and IdentityNet.

Once the codec is trained its encoder is frozen; its decoder keeps learning. Some samples sit at t = 1 so
that one step works from the start; the others sit where the sampler's own earlier steps led, so that
further steps correct what the first ones missed and never meet latents better than their own. With
`full_noise` below 1 some are true latents with noise, as in plain diffusion (a first run begins so).
The previous frame is the network's own, rolled out through the very cache of inference, or the cold
start.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.diffusion.flow import flow_path
from engine.nets.painter import Cache, Painter, Reference
from engine.training.mouth_crop import mouth_crop
from engine.training.painter.pairs import Triple

MOUTH_SIDE = 72  # pixels of the mouth crop


@dataclass(frozen=True, slots=True, kw_only=True)
class PainterTraining:
    """Settings of one run; the run folder keeps them."""

    steps: int = 2300
    codec_steps: int = 160  # encoder and decoder alone; then the encoder is frozen
    batch: int = 8
    rate: float = 5e-4
    warm_up: int = 150
    codec_share: float = 0.25  # of a batch decodes the true latents
    full_noise: float = 1.0  # of the samples of a step that is not rolled sit at t = 1
    rolled: float = 0.6  # of the steps go on from the sampler's own first steps
    rolled_steps: tuple[int, ...] = (4, 10, 25, 25)  # lengths of the sampler, drawn at random
    cold: float = 0.4  # of the steps start from the cold cache
    ema: float = 0.998
    seed: int = 0


class PainterLoss:
    """The loss of one batch: `perceptual` is a distance of images (B, 3, H, W) twice -> (B,)."""

    def __init__(self, net: Painter, settings: PainterTraining, perceptual: nn.Module) -> None:
        self.net, self.settings, self.perceptual = net, settings, perceptual

    def __call__(self, batch: Triple, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of step number `step`, and its parts."""
        s = self.settings
        torch.manual_seed(s.seed * 1_000_003 + step)  # a resumed run equals an unbroken one
        codec = step < s.codec_steps
        self.net.encoder.requires_grad_(codec)
        losses = self._codec(batch) if codec else self._diffusion(batch)
        total = losses["l1"] + losses["lpips"] + 0.6 * losses["mouth"]
        total = total + 0.7 * losses["mouth_lpips"]
        if not codec:
            total = total + 0.15 * losses["latent"]
        return total, losses

    def _previous(self, batch: Triple, reference: Reference) -> Cache:
        """The cache this frame starts from: cold, or the network's own earlier frame."""
        cold = self.net.cold(reference)
        if torch.rand(()) < self.settings.cold:
            return cold
        size = len(batch.target)
        near = torch.rand(size, 1, 1)  # between the target's face and another one
        landmarks = batch.target_landmarks + near * (
            batch.earlier_landmarks - batch.target_landmarks
        )
        placement = batch.target_placement + near[:, 0] * (
            batch.earlier_placement - batch.target_placement
        )
        with torch.no_grad():
            still = Reference(
                reference.latents.detach(),
                tuple(k.detach() for k in reference.keys),
                reference.identity.detach(),
            )
            condition = self.net.condition(
                batch.reference, still, batch.reference_landmarks, landmarks, placement
            )
            guidance = self.net.guide(condition, self.net.cold(still))
            noise = torch.randn_like(still.latents)
            made = self.net.denoise(noise, torch.ones(size), guidance, still, self.net.cold(still))
            blur = 0.15 * torch.rand(size, 1, 1, 1) * torch.randn_like(made.latents)
        return Cache(made.latents + blur, made.keys)

    def _codec(self, batch: Triple) -> dict[str, Tensor]:
        true = self.net.encoder(batch.target)
        with torch.no_grad():
            warped, _, _, opening = self.net.geometry(
                batch.reference, true, batch.reference_landmarks, batch.target_landmarks
            )
        painted, _ = self.net.decoder(true, warped, opening)
        return self._compare(painted, batch)

    def _compare(self, painted: Tensor, batch: Triple) -> dict[str, Tensor]:
        mouth, wanted = (
            mouth_crop(x, batch.target_landmarks, MOUTH_SIDE) for x in (painted, batch.target)
        )
        return {
            "l1": (painted - batch.target).abs().mean(),
            "lpips": self.perceptual(painted, batch.target).mean(),
            "mouth": (mouth - wanted).abs().mean(),
            "mouth_lpips": self.perceptual(mouth, wanted).mean(),
        }

    def _diffusion(self, batch: Triple) -> dict[str, Tensor]:
        s = self.settings
        size = len(batch.target)
        with torch.no_grad():
            true = self.net.encoder(batch.target)
        reference = self.net.enroll(batch.reference)
        with torch.no_grad():
            condition = self.net.condition(
                batch.reference,
                reference,
                batch.reference_landmarks,
                batch.target_landmarks,
                batch.target_placement,
            )
        cache = self._previous(batch, reference)
        guidance = self.net.guide(condition, cache)
        if torch.rand(()) < s.rolled:
            z_t, t = self.rolled(torch.randn_like(true), guidance, reference, cache)
        else:
            t = torch.where(torch.rand(size) < s.full_noise, torch.ones(size), torch.rand(size))
            mix = t[:, None, None, None]
            z_t = (1 - mix) * true + mix * torch.randn_like(true)
        made = self.net.denoise(z_t, t, guidance, reference, cache)
        head = round(size * s.codec_share)
        latents = torch.cat([true[:head], made.latents[head:]])
        painted, trust = self.net.decoder(latents, condition.warped, condition.opening)
        losses = self._compare(painted, batch)
        return {**losses, "latent": F.mse_loss(made.latents, true)}

    @torch.no_grad()
    def rolled(
        self,
        noise: Tensor,
        guidance: tuple[Tensor, Tensor, Tensor],
        reference: Reference,
        cache: Cache,
    ) -> tuple[Tensor, Tensor]:
        """Where the sampler stands after some of its steps: z_t like `noise` (B, 4, h, w), t (B,)."""
        choices = self.settings.rolled_steps
        steps = choices[int(torch.randint(len(choices), ()))]
        done = int(torch.randint(1, steps, ()))

        def predict(z_t: Tensor, now: float) -> Tensor:
            t = torch.full((len(noise),), now)
            return self.net.denoise(z_t, t, guidance, reference, cache).latents

        z_t, left = next(islice(flow_path(predict, noise, steps), done - 1, None))
        return z_t, torch.full((len(noise),), left)
