"""The tiny image network as a whole: ReferenceNet once, AnimateNet once a frame, IdentityNet a step.

Diffusion on a rectified path z_t = (1 - t) z_0 + t noise, z_0-prediction (arXiv 2209.03003), so one
evaluation at t = 1 is already a sample and more steps refine it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.diffusion.flow import flow_path
from engine.nets.animate_net import AnimateNet
from engine.nets.codec import LATENT_CHANNELS, Decoder, Encoder
from engine.nets.geometry import CropGeometry
from engine.nets.identity_net import IdentityNet, KeyValue, ReferenceNet

CROP_SIDE = 128  # pixels of the painted crop
LATENT = 32  # pixels of its latents


@dataclass(frozen=True, slots=True)
class PainterConfig:
    """Widths of the tiny image networks."""

    unet: tuple[int, int, int] = (48, 96, 128)
    encoder: tuple[int, int] = (32, 64)
    decoder: tuple[int, int] = (48, 32)
    animate_stem: int = 32


@dataclass(frozen=True, slots=True)
class Reference:
    """Enrolment's result for a reference crop: latents, keys/values, identity tokens."""

    latents: Tensor  # (B, 16, 32, 32)
    keys: KeyValue
    identity: Tensor  # (B, 4, 128)


@dataclass(frozen=True, slots=True)
class Cache:
    """Frame cache, from one frame to the next: final latents, keys/values of the last denoising step."""

    latents: Tensor
    keys: KeyValue


@dataclass(frozen=True, slots=True)
class Condition:
    """One frame's geometry, drawn."""

    warped: Tensor  # (B, 3, 128, 128)
    warped_latents: Tensor  # (B, 16, 32, 32)
    maps: Tensor  # (B, 2 G + 1, 32, 32)
    opening: Tensor  # (B, 1, 64, 64)
    landmarks: Tensor  # (B, 478, 2)
    placement: Tensor  # (B, 6)


class Painter(nn.Module):
    """Crop in, painted crop out."""

    def __init__(self, config: PainterConfig | None = None) -> None:
        super().__init__()
        config = config or PainterConfig()
        self.geometry = CropGeometry()
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config.decoder)
        self.reference_net = ReferenceNet(config.unet)
        self.animate_net = AnimateNet(config.unet, config.animate_stem)
        self.identity_net = IdentityNet(config.unet)

    def enroll(self, crop: Tensor) -> Reference:
        """Encode a reference crop (B, 3, 128, 128) in [-1, 1], once a portrait."""
        latents = self.encoder(crop)
        h1, h2, identity = self.reference_net(latents)
        return Reference(latents, self.identity_net.write(h1, h2), identity)

    def condition(
        self,
        crop: Tensor,
        reference: Reference,
        source: Tensor,
        target: Tensor,
        placement: Tensor,
    ) -> Condition:
        """Draw the geometry of a frame.

        Shapes:
            in: crop (B, 3, 128, 128) in [-1, 1]; landmarks `source` of the reference and `target` of the
            frame (B, 478, 2) in crop units; placement (B, 6) as in `AnimateNet`.
        """
        warped, latents, maps, opening = self.geometry(crop, reference.latents, source, target)
        return Condition(warped, latents, maps, opening, target, placement)

    @staticmethod
    def cold(reference: Reference) -> Cache:
        """The cache before the first frame: the reference itself."""
        return Cache(reference.latents, reference.keys)

    def guide(self, condition: Condition, cache: Cache) -> tuple[Tensor, Tensor, Tensor]:
        """AnimateNet's guidance of one frame: (B, c0, 32, 32), (B, c1, 16, 16), (B, c2, 8, 8)."""
        guidance: tuple[Tensor, Tensor, Tensor] = self.animate_net(
            condition.maps,
            condition.warped_latents,
            cache.latents,
            condition.landmarks,
            condition.placement,
        )
        return guidance

    def denoise(
        self,
        z_t: Tensor,
        t: Tensor,
        guidance: tuple[Tensor, Tensor, Tensor],
        reference: Reference,
        cache: Cache,
    ) -> Cache:
        """One evaluation of IdentityNet: z_0 and its keys/values.

        Shapes:
            in: z_t (B, 16, 32, 32); t (B,) in [0, 1]; guidance as `guide` returns it.
        """
        z_0, keys = self.identity_net(
            z_t, t, reference.latents, guidance, reference.identity, reference.keys, cache.keys
        )
        return Cache(z_0, keys)

    def sample(
        self,
        condition: Condition,
        reference: Reference,
        cache: Cache,
        noise: Tensor,
        steps: int = 1,
    ) -> tuple[Tensor, Tensor, Cache]:
        """Paint one frame in `steps` steps.

        Shapes:
            in: noise (B, 16, 32, 32), standard normal.
            out: crop (B, 3, 128, 128) in [-1, 1] (not clipped), weight of the warp (B, 1, 128, 128),
            new cache.
        """
        guidance = self.guide(condition, cache)
        made = cache

        def predict(z_t: Tensor, now: float) -> Tensor:
            nonlocal made
            made = self.denoise(z_t, torch.full((len(noise),), now), guidance, reference, cache)
            return made.latents

        for _ in flow_path(predict, noise, steps):
            pass
        painted, trust = self.decoder(made.latents, condition.warped, condition.opening)
        return painted, trust, made

    @staticmethod
    def noise(batch: int, seed: int = 0) -> Tensor:
        """The fixed noise of a stream: (batch, 16, 32, 32), standard normal."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, LATENT_CHANNELS, LATENT, LATENT, generator=generator)
