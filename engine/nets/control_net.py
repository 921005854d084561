"""AnimateNet at full size: a ControlNet with landmark, placement and temporal attention of its own.

What it gives is added to IdentityNet's skips, as a ControlNet's is, or attended to there, as the paper says.
Every attention that a public ControlNet (arXiv 2302.05543) does not have has an output projection
that starts at zero, so a freshly loaded one computes what it did before.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from engine.face.placement import SIXTY_EIGHT, WITHOUT_MOUTH_68
from engine.motion.speech_context import HEARD
from engine.nets.attention import AttentionCall, KeyValues, channels_of, layer_order
from engine.nets.conditions import Guidance
from engine.nets.guided_attention import GuidedCrossAttention, TemporalSelfAttention
from engine.nets.identity_unet import unet_arguments
from engine.nets.sd15_config import PLACEMENT, PLACEMENT_TOKENS, Sd15Config, UnetSizes


def control_net_arguments(sizes: UnetSizes) -> dict[str, Any]:
    """`sizes` as the arguments of diffusers' `ControlNetModel`."""
    arguments = unet_arguments(sizes)
    for name in ("sample_size", "out_channels", "up_block_types"):
        del arguments[name]
    arguments["conditioning_embedding_out_channels"] = sizes.conditioning_channels
    return arguments


class LandmarkTokens(nn.Module):
    """One token a landmark, with a learned position: (B, 68, 3) -> (B, 68, D)."""

    def __init__(self, count: int, context: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, context), nn.SiLU(), nn.Linear(context, context))
        self.place = nn.Parameter(torch.randn(count, context) * 0.02)

    def forward(self, landmarks: Tensor) -> Tensor:
        """Compute the tokens."""
        out: Tensor = self.body(landmarks) + self.place
        return out


class PlacementTokens(nn.Module):
    """Placement vector -> 8 tokens: (B, 8) -> (B, 8, D)."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(PLACEMENT, context),
            nn.SiLU(),
            nn.Linear(context, PLACEMENT_TOKENS * context),
        )

    def forward(self, placement: Tensor) -> Tensor:
        """Compute the tokens."""
        out: Tensor = self.body(placement)
        return out.reshape(out.shape[0], PLACEMENT_TOKENS, -1)


class SpeechTokens(nn.Module):
    """One token a speech feature frame, with a learned position: (B, 16, W) -> (B, 16, D)."""

    def __init__(self, features: int, context: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, context),
            nn.SiLU(),
            nn.Linear(context, context),
        )
        self.place = nn.Parameter(torch.randn(HEARD, context) * 0.02)

    def forward(self, speech: Tensor) -> Tensor:
        """Compute the tokens."""
        out: Tensor = self.body(speech) + self.place
        return out


class AnimateControlNet(nn.Module):
    """Guidance for IdentityNet from the drawn face, landmarks, placement and the previous frame.

    Shapes:
        in: z_t (B, 4, h, w); t (B,); text (B, 77, D); guidance of the frame, whose speech tokens
            follow its landmark tokens in the same attention; previous: 7 (K, V) pairs of the frame before.
        out: 13 residuals, 12 for the skips and one for the middle; with injection by cross-attention the
            features that they would be made of; its own 7 (K, V) pairs.
    """

    def __init__(self, net: ControlNetModel, config: Sd15Config) -> None:
        super().__init__()
        self.config = config
        self.net = net
        if config.injection == "cross_attention":  # zeros in, nothing to attend to out
            net.controlnet_down_blocks = nn.ModuleList(
                nn.Identity() for _ in net.controlnet_down_blocks
            )
            net.controlnet_mid_block = nn.Identity()
        context = config.unet.cross_attention_dim
        count = len(WITHOUT_MOUTH_68 if config.difftalk else SIXTY_EIGHT)
        self.landmark_tokens = LandmarkTokens(count, context)
        self.speech_tokens = (
            SpeechTokens(config.speech_features, context) if config.difftalk else None
        )
        self.placement_tokens = PlacementTokens(context) if config.placement else None
        self.layers = layer_order(net.attn_processors)
        net.set_attn_processor(self._processors())

    @classmethod
    def build(cls, config: Sd15Config) -> AnimateControlNet:
        """With random weights."""
        return cls(ControlNetModel(**control_net_arguments(config.unet)), config)

    def _processors(self) -> dict[str, nn.Module]:
        made: dict[str, nn.Module] = {}
        for layer, block in enumerate(self.layers):
            channels, context, heads = channels_of(self.net, block)
            made[f"{block}.attn1.processor"] = TemporalSelfAttention(
                layer, channels, previous=self.config.temporal
            )
            made[f"{block}.attn2.processor"] = GuidedCrossAttention(
                channels, context, heads, placement=self.config.placement
            )
        return made

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        text: Tensor,
        guidance: Guidance,
        previous: KeyValues | None = None,
    ) -> tuple[tuple[Tensor, ...], KeyValues]:
        """One evaluation."""
        call = AttentionCall(previous=previous)
        if guidance.landmarks is not None:
            call.landmarks = self.landmark_tokens(guidance.landmarks)
            if guidance.speech is not None and self.speech_tokens is not None:
                speech = self.speech_tokens(guidance.speech)
                call.landmarks = torch.cat([call.landmarks, speech], 1)
        if guidance.placement is not None and self.placement_tokens is not None:
            call.placement = self.placement_tokens(guidance.placement)
        down, middle = self.net(
            z_t,
            t,
            text,
            controlnet_cond=guidance.image,
            cross_attention_kwargs={"call": call},
            return_dict=False,
        )
        return (*down, middle), call.keys_values()
