"""The networks of one training run behind a few calls: where losses and samplers meet the model."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.diffusion.samplers import SamplerSettings, sample
from engine.loaders.run_card import Stage, Start
from engine.nets.attention import KeyValues
from engine.nets.conditions import Conditions, Guidance
from engine.nets.portraittalk import (
    Caches,
    PortraitTalkModel,
    hide_lower_half,
)
from engine.nets.text_tokens import Tokenise
from engine.training.portraittalk.dataset import TalkBatch
from engine.training.portraittalk.diffusion_loss import NoiseSchedule
from engine.training.portraittalk.stage_config import ModelSettings


def sampling(steps: int) -> SamplerSettings:
    """How a system samples while it is trained."""
    return SamplerSettings(sampler="ddim", num_inference_steps=steps, trailing=True)


def noised(caches: Caches, amount: float) -> Caches:
    """Keys and values (B, S, C) with noise added, `amount` times each tensor's own spread."""

    def one(pairs: KeyValues) -> KeyValues:
        return tuple((_noised(k, amount), _noised(v, amount)) for k, v in pairs)

    unet, animate = caches
    return one(unet), one(animate)


def _noised(x: Tensor, amount: float) -> Tensor:
    return x + amount * x.std() * torch.randn_like(x)


@dataclasses.dataclass(frozen=True, slots=True)
class Earlier:
    """A stage that was trained before."""

    name: Stage
    step: int | None  # None where a version that wrote no card made it
    holds: frozenset[str]  # names of its weights


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a system comes from; its run's card says so."""

    start: Start
    face_encoder: str  # of the clips; "" for none
    earlier: tuple[Earlier, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Begin:
    """A frame begins from another one.

    Attributes:
        clean: latents (B, 4, h, w) of it.
        strength: how much of the way is gone from them, above 0 to 1.
    """

    clean: Tensor
    strength: float


class TalkingSystem(nn.Module):
    """A `PortraitTalkModel`, its noise schedule, its tokenizer, and whose encoder makes latents."""

    def __init__(
        self,
        model: PortraitTalkModel,
        settings: ModelSettings,
        tokenise: Tokenise,
        origin: Origin,
    ) -> None:
        super().__init__()
        self.model = model
        self.schedule = NoiseSchedule()
        self.settings, self.tokenise, self.origin = settings, tokenise, origin

    def shrunk(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, H) as large as the networks draw: an enlarger learns from larger ones."""
        side = self.model.config.picture_side
        if images.shape[-1] == side:
            return images
        return F.interpolate(images, (side, side), mode="bicubic", antialias=True)

    def encode(self, images: Tensor) -> Tensor:
        """Images (..., 3, H, H) in [-1, 1] -> latents (..., 4, h, w); no gradient."""
        flat = self.shrunk(images.flatten(0, -4))
        with torch.no_grad():
            z = self.model.codec.encode(flat, tiny=self.settings.latents == "tiny")
        return z.float().unflatten(0, images.shape[:-3])

    def latent_shape(self, rows: int) -> tuple[int, int, int, int]:
        """Shape of the latents of so many frames."""
        sizes = self.model.config.unet
        return rows, sizes.latent_channels, sizes.sample_size, sizes.sample_size

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, h, w) -> images (B, 3, S, S) of the output's size, by the tiny decoder that is deployed."""
        return self.model.codec.decode(latents, tiny=True)

    def conditions(
        self,
        batch: TalkBatch,
        drop_text: Tensor | None = None,
        drop_identity: Tensor | None = None,
    ) -> Conditions:
        """Conditions of a batch; the dropped rows (B,) get no words, or nobody's embedding."""
        prompts = list(batch.prompts)
        if drop_text is not None:
            prompts = ["" if d else p for p, d in zip(prompts, drop_text.tolist(), strict=True)]
        with torch.no_grad():
            text = self.model.read(self.tokenise(prompts).to(batch.frames.device))
        embeddings = batch.embeddings
        if drop_identity is not None:
            embeddings = embeddings * (~drop_identity)[:, None, None]
        identity = self.model.identify(embeddings)
        reference = self.model.write_reference(self.encode(batch.references), text, identity)
        return Conditions(text, identity, reference)

    def guidance(self, batch: TalkBatch, frame: int, *, cold: bool = False) -> Guidance:
        """The guidance of frame `frame` of each run; `cold`: the portrait is the frame before."""
        placed = batch.reference_placement if cold else batch.placement[:, frame]
        with torch.no_grad():
            return self.model.guidance(
                batch.landmarks[:, frame],
                batch.points[:, frame],
                placed,
                concat=self.concat(batch, frame),
                speech=batch.speech[:, frame],
            )

    def concat(self, batch: TalkBatch, frame: int) -> Tensor | None:
        """DiffTalk's latents (B, 8, h, w) of frame `frame`: itself masked, and the reference."""
        if not self.model.config.difftalk:
            return None
        masked = hide_lower_half(batch.frames[:, frame], batch.landmarks[:, frame])
        return self.model.concat(self.encode(masked), self.encode(batch.references[:, 0]))

    def unguided(
        self, z_t: Tensor, t: Tensor, told: Conditions, concat: Tensor | None = None
    ) -> Tensor:
        """IdentityNet alone: noise (B, 4, h, w)."""
        eps, _ = self.model.unet(z_t, t, told, concat=concat)
        out: Tensor = eps.float()
        return out

    def evaluate(
        self, z_t: Tensor, t: Tensor, told: Conditions, guide: Guidance, before: Caches | None
    ) -> tuple[Tensor, Caches]:
        """One evaluation of both nets: noise (B, 4, h, w) and this frame's caches."""
        eps, caches = self.model(z_t, t, told, guide, before)
        return eps.float(), caches

    def denoise(
        self,
        noise: Tensor,
        steps: int,
        told: Conditions,
        guide: Guidance,
        before: Caches | None,
        *,
        gradient: bool = False,
        begin: Begin | None = None,
    ) -> tuple[Tensor, Caches]:
        """Make a frame with the sampler of inference (DDIM).

        Args:
            noise: (B, 4, h, w).
            begin: what to begin from in place of pure noise; then the gradient flows through no step.
            gradient: let the gradient flow, through the last step alone.

        Returns:
            latents (B, 4, h, w) and the frame's caches.
        """
        asked = 0
        left: Caches = ((), ())

        def model(z_t: Tensor, t: Tensor) -> Tensor:
            nonlocal asked, left
            asked += 1
            with torch.set_grad_enabled(gradient and asked == steps):
                eps, left = self.evaluate(z_t, t, told, guide, before)
            return eps

        clean, strength = (None, 1.0) if begin is None else (begin.clean, begin.strength)
        return sample(model, noise, sampling(steps), clean=clean, strength=strength), left


def detached(told: Conditions) -> Conditions:
    """The same conditions without their gradient."""
    reference = told.reference
    return dataclasses.replace(
        told,
        identity=None if told.identity is None else told.identity.detach(),
        reference=None
        if reference is None
        else tuple((k.detach(), v.detach()) for k, v in reference),
    )
