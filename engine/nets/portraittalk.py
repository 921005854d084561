"""The whole full-size system: text encoder, identity, AnimateNet, IdentityNet and the autoencoders."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from engine.face.placement import HEIGHT, WITHOUT_MOUTH_68
from engine.face.topology import STABLE
from engine.nets.attention import KeyValue, KeyValues
from engine.nets.conditions import Conditions, Guidance
from engine.nets.control_net import AnimateControlNet
from engine.nets.face_lines import FaceLines
from engine.nets.identity_unet import IdentityUnet
from engine.nets.pose_guider import PoseGuider
from engine.nets.projection import IdentityProjection
from engine.nets.sd15_config import Sd15Config, TextSizes
from engine.nets.sd_codec import SdCodec

Caches = tuple[KeyValues, KeyValues]  # frame cache: keys/values of IdentityNet and of AnimateNet
NOSE_TIP = 4
CENTRED_EYES = 0.25  # outer eye distance of a centred face, in units of the image's side


def text_encoder(sizes: TextSizes) -> CLIPTextModel:
    """A CLIP text encoder with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.hidden,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.intermediate,
            max_position_embeddings=sizes.length,
            projection_dim=sizes.hidden,
            bos_token_id=sizes.vocabulary - 2,
            eos_token_id=sizes.vocabulary - 1,
        )
    )


def centred(landmarks: Tensor, points: Tensor) -> Tensor:
    """Move and scale `points` so that the face of `landmarks` is centred, at a fixed size.

    Shapes:
        in: landmarks (B, 478, 2) in [0, 1]; points (B, P, 2 or 3). out: like `points`.
    """
    middle = landmarks[:, list(STABLE)].mean(1, keepdim=True)
    eyes = (landmarks[:, 263] - landmarks[:, 33]).norm(dim=-1)
    factor = (CENTRED_EYES / eyes.clamp(min=1e-4))[:, None, None]
    flat = (points[..., :2] - middle) * factor + 0.5
    return torch.cat([flat, points[..., 2:] * factor], -1)


def hide_lower_half(pictures: Tensor, landmarks: Tensor) -> Tensor:
    """DiffTalk's masked frame (arXiv 2301.03786): every row from the nose tip down is grey.

    Shapes:
        in: pictures (B, 3, S, S) in [-1, 1]; landmarks (B, 478, 2) in [0, 1]. out: like `pictures`.
    """
    side = pictures.shape[-2]
    tip = (landmarks[:, NOSE_TIP, 1] * side).floor().clamp(0, side)
    kept = torch.arange(side, device=pictures.device) < tip[:, None]
    return pictures * kept[:, None, :, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The parts of a `PortraitTalkModel`.

    Attributes:
        projection: None without a face encoder.
        reference_net: writes the portraits' keys and values; None when the UNet does so itself.
    """

    unet: IdentityUnet
    animate: AnimateControlNet | PoseGuider
    codec: SdCodec
    text: CLIPTextModel
    projection: IdentityProjection | None = None
    reference_net: IdentityUnet | None = None


class PortraitTalkModel(nn.Module):
    """All networks of one system; sampling, training and the live engine call these parts."""

    def __init__(self, config: Sd15Config, networks: Networks) -> None:
        super().__init__()
        self.config = config
        self.unet = networks.unet
        self.animate = networks.animate
        self.projection = networks.projection
        self.reference_net = networks.reference_net
        self.codec = networks.codec
        self.text = networks.text
        self.lines = FaceLines(config.picture_side, mouth=not config.difftalk)

    @classmethod
    def build(cls, config: Sd15Config) -> PortraitTalkModel:
        """With random weights."""
        guider = AnimateControlNet if config.guider == "control_net" else PoseGuider
        own = config.reference_writer == "reference_net"
        networks = Networks(
            unet=IdentityUnet.build(config),
            animate=guider.build(config),
            projection=IdentityProjection.build(config) if config.face_encoder else None,
            reference_net=IdentityUnet.build(writer_config(config)) if own else None,
            codec=SdCodec.build(config.codec),
            text=text_encoder(config.text),
        )
        return cls(config, networks)

    def read(self, ids: Tensor) -> Tensor:
        """Token ids (B, 77) -> text embedding (B, 77, D)."""
        out: Tensor = self.text(ids).last_hidden_state
        return out

    def identify(self, embeddings: Tensor) -> Tensor | None:
        """Face embeddings (B, R, E) -> identity tokens (B, R * N, D); None without a face encoder.

        Zero embeddings stand for no identity, for classifier-free guidance.
        """
        if self.projection is None:
            return None
        return self.projection(self._used(embeddings))

    def write_reference(self, latents: Tensor, text: Tensor, identity: Tensor | None) -> KeyValues:
        """Keys and values of the portraits' clean latents (B, R, 4, h, w), once a portrait.

        Shapes:
            in: text (B, 77, D); identity (B, N, D). out: 16 (K, V) pairs, each (B, R * S, C).
        """
        writer = self.reference_net or self.unet
        return writer.write_reference(
            self._used(latents), text, identity if writer is self.unet else None
        )

    def _used(self, references: Tensor) -> Tensor:
        return references[:, :1] if self.config.references == "first" else references

    def concat(self, masked: Tensor, reference: Tensor) -> Tensor | None:
        """Input of IdentityNet beside the noisy latents: DiffTalk's conditioning only, else None.

        Shapes:
            in: latents (B, 4, h, w) of the frame with its lower half hidden, and of the reference.
            out: (B, 8, h, w).
        """
        return torch.cat([masked, reference], 1) if self.config.difftalk else None

    def guidance(
        self,
        landmarks: Tensor,
        points: Tensor,
        placement: Tensor,
        *,
        concat: Tensor | None = None,
        speech: Tensor | None = None,
    ) -> Guidance:
        """The conditions of a frame.

        With placement off, neither the control image nor the tokens contain the head's position or
        size. With DiffTalk's conditioning neither they nor the placement contain the position of mouth
        and chin.

        Shapes:
            in: landmarks (B, 478, 2) in [0, 1]; points (B, 68, 3) of `engine.face.placement`;
            placement (B, 8) of the frame before; concat and speech as in `Guidance`.
        """
        if not self.config.difftalk:
            return self._seen(landmarks, points, placement)
        guide = self._seen(landmarks, points[:, list(WITHOUT_MOUTH_68)], placement)
        if guide.placement is not None:
            kept = torch.ones_like(guide.placement)
            kept[:, HEIGHT] = 0  # of the oval: it grows as the jaw drops
            guide = replace(guide, placement=guide.placement * kept)
        return replace(guide, concat=concat, speech=speech)

    def _seen(self, landmarks: Tensor, points: Tensor, placement: Tensor) -> Guidance:
        if self.config.placement:
            return Guidance(self.lines(landmarks), points, placement)
        image = self.lines(centred(landmarks, landmarks))
        return Guidance(image, centred(landmarks, points), None)

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        conditions: Conditions,
        guidance: Guidance,
        previous: Caches | None = None,
    ) -> tuple[Tensor, Caches]:
        """One evaluation of latents z_t (B, 4, h, w) at times t (B,).

        Returns:
            noise (B, 4, h, w) and the frame cache after it.
        """
        before, animate_before = previous or (None, None)
        guidance = replace(guidance, image=guidance.image.to(z_t.dtype))
        control, animate_own = self.animate(
            z_t,
            t,
            conditions.text,
            guidance,
            previous=animate_before if self.config.temporal else None,
        )
        if conditions.control is not None and self.config.injection == "residual":
            share = conditions.control.to(z_t.dtype).view(-1, 1, 1, 1)
            control = tuple(share * added for added in control)
        noise, own = self.unet(
            z_t, t, conditions, concat=guidance.concat, control=control, previous=before
        )
        return noise, (own, animate_own)

    def remember(self, before: Caches | None, own: Caches) -> Caches:
        """The cache for the next frame: what the frames `before` left and what the last one did.

        Shapes: every key and value (B, n * S, C) of n frames before, and (B, S, C) of the last one.
        """
        if before is None:
            return own
        layers, config = len(self.unet.layers), self.config
        unet = zip(before[0], own[0], strict=True)
        kept = [
            newest(*pair, config.history if i < layers else config.motion_window)
            for i, pair in enumerate(unet)
        ]
        animate = zip(before[1], own[1], strict=True)
        return tuple(kept), tuple(newest(*pair, config.history) for pair in animate)


def newest(before: KeyValue, own: KeyValue, frames: int) -> KeyValue:
    """The newest `frames` of the tokens (B, n * S, C) of earlier frames and (B, S, C) of the last one."""
    if frames == 1:
        return own
    tokens = own[0].shape[1] * frames
    key, value = (torch.cat(pair, 1)[:, -tokens:] for pair in zip(before, own, strict=True))
    return key, value


def writer_config(config: Sd15Config) -> Sd15Config:
    """ReferenceNet's own configuration: a plain UNet that reads text and no identity tokens."""
    return replace(
        config,
        face_encoder=False,
        guider="control_net",
        injection="residual",
        conditioning="portraittalk",
        motion_modules="none",
    )
