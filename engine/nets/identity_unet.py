"""IdentityNet at full size: diffusers' UNet of Stable Diffusion 1.5 with our attention processors."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from engine.diffusion.samplers import make_scheduler
from engine.nets.attention import (
    AttentionCall,
    CrossAttention,
    DecoupledCrossAttention,
    KeyValues,
    SelfAttention,
    UnifiedCrossAttention,
    channels_of,
    joined,
    layer_order,
)
from engine.nets.conditions import Conditions
from engine.nets.guided_attention import FeatureAttention
from engine.nets.motion_modules import build_motion, evaluate
from engine.nets.sd15_config import Sd15Config, UnetSizes

Control = tuple[Tensor, ...]  # 13 residuals of a ControlNet, or one stem map of a pose guider


def unet_arguments(sizes: UnetSizes) -> dict[str, Any]:
    """`sizes` as the arguments of diffusers' `UNet2DConditionModel`."""
    levels = len(sizes.block_out_channels)
    return {
        "sample_size": sizes.sample_size,
        "in_channels": sizes.latent_channels,
        "out_channels": sizes.latent_channels,
        "down_block_types": ("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        "block_out_channels": sizes.block_out_channels,
        "layers_per_block": sizes.layers_per_block,
        "cross_attention_dim": sizes.cross_attention_dim,
        "attention_head_dim": sizes.heads,  # diffusers' old name for the number of heads
        "norm_num_groups": sizes.norm_num_groups,
    }


def features_beside(sizes: UnetSizes) -> list[tuple[int, int]]:
    """Of each attention's layer the one of AnimateNet's 13 maps that is as large, and its channels.

    On the way down what the same layer made there, on the way up what it made for the skip.
    """
    each, levels = sizes.layers_per_block, sizes.block_out_channels[:-1]
    width = [levels[0]]  # of the maps down to the deepest level, which meets no attention
    for channels in levels:
        width += [channels] * (each + 1)
    own = [1 + level * (each + 1) + i for level in range(len(levels)) for i in range(each)]
    skips = range(len(levels) * (each + 1) - 1, -1, -1)
    middle = (len(sizes.block_out_channels) * (each + 1), sizes.block_out_channels[-1])
    return [*((at, width[at]) for at in own), middle, *((at, width[at]) for at in skips)]


class GuidedConv(nn.Conv2d):
    """`conv_in` that also takes a stem map in the channels after its own, and adds it."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4, h, w) or (B, 4 + C, h, w) -> (B, C, h, w)."""
        own, map_ = x[:, : self.in_channels], x[:, self.in_channels :]
        out = super().forward(own)
        return out + map_ if map_.shape[1] else out

    @classmethod
    def around(cls, conv: nn.Conv2d) -> GuidedConv:
        """The same convolution with the same parameters (not copies)."""
        made = cls(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        made.weight, made.bias = conv.weight, conv.bias
        return made


class ConcatConv(nn.Conv2d):
    """`conv_in` that also takes further latents, by weights of their own that start at zero.

    So a freshly loaded UNet computes what it did before, whatever the further latents are.
    """

    more: nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4, h, w) or (B, 4 + N, h, w) -> (B, C, h, w)."""
        own, further = x[:, : self.in_channels], x[:, self.in_channels :]
        out: Tensor = super().forward(own)
        return out + self.more(further) if further.shape[1] else out

    @classmethod
    def around(cls, conv: nn.Conv2d, channels: int) -> ConcatConv:
        """The same convolution with the same parameters, and `channels` further ones."""
        made = cls(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
        made.weight, made.bias = conv.weight, conv.bias
        made.more = nn.Conv2d(channels, conv.out_channels, 3, padding=1, bias=False)
        made.more.to(conv.weight)
        nn.init.zeros_(made.more.weight)
        return made


class IdentityUnet(nn.Module):
    """Predicts the noise of latents under text, identity, guidance and cached keys/values.

    Shapes:
        in: z_t (B, 4, h, w); t (B,); conditions of the stream;
            concat (B, 8, h, w): latents of the masked frame and of the reference, None for neither,
            read with DiffTalk's conditioning alone;
            control: 13 residuals, or as many maps to attend to, as `injection` says, or one map
            (B, C, h, w) added after the first convolution;
            previous: 16 (K, V) pairs, each (B or 1, n * S, C), then what each motion module saw.
        out: noise (B, 4, h, w), its own pairs, in the same order.
    """

    def __init__(self, unet: UNet2DConditionModel, config: Sd15Config) -> None:
        super().__init__()
        self.config = config
        self.unet = unet
        if config.guider == "pose_guider":
            unet.conv_in = GuidedConv.around(unet.conv_in)
        if config.concat_channels:
            unet.conv_in = ConcatConv.around(unet.conv_in, config.concat_channels)
        self.layers = layer_order(unet.attn_processors)
        unet.set_attn_processor(self._processors())
        self.motion = None if config.motion_modules == "none" else build_motion(config)
        self.signal: Tensor | None
        velocity = config.prediction == "velocity"
        kept = make_scheduler("ddim").alphas_cumprod.sqrt() if velocity else None
        self.register_buffer("signal", kept, persistent=False)

    @classmethod
    def build(cls, config: Sd15Config) -> IdentityUnet:
        """With random weights."""
        return cls(UNet2DConditionModel(**unet_arguments(config.unet)), config)

    def _processors(self) -> dict[str, nn.Module]:
        made: dict[str, nn.Module] = {}
        beside = features_beside(self.config.unet)
        for layer, block in enumerate(self.layers):
            channels, context, heads = channels_of(self.unet, block)
            cross = CrossAttention(layer)
            if self.config.face_encoder and self.config.attention == "decoupled":
                cross = DecoupledCrossAttention(layer, channels, context)
            elif self.config.face_encoder:
                cross = UnifiedCrossAttention(layer)
            if self.config.injection == "cross_attention":
                with torch.random.fork_rng(devices=[]):  # all else begins as it does without
                    cross.animation = FeatureAttention(channels, beside[layer][1], heads)
            made[f"{block}.attn1.processor"] = SelfAttention(layer, previous=self.config.temporal)
            made[f"{block}.attn2.processor"] = cross
        return made

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        told: Conditions,
        *,
        concat: Tensor | None = None,
        control: Control | None = None,
        previous: KeyValues | None = None,
        moving: bool = True,
    ) -> tuple[Tensor, KeyValues]:
        """One evaluation; `told` are the conditions of the stream, shapes as above.

        Args:
            moving: False leaves the motion modules out, for what is no frame of a video.
        """
        call = AttentionCall(told.identity, told.scale, told.reference, previous, told.weight)
        noisy = z_t
        if concat is not None and self.config.difftalk:
            z_t = torch.cat([z_t, concat.to(z_t.dtype).expand(z_t.shape[0], -1, -1, -1)], 1)
        if control is not None and len(control) == 1:
            z_t, control = torch.cat([z_t, control[0].to(z_t.dtype)], 1), None
        if control is not None and self.config.injection == "cross_attention":
            call.features = tuple(control[at] for at, _ in features_beside(self.config.unet))
            call.control = told.control
            control = None
        out, seen = self._evaluate(z_t, t, told.text, call, control, moving=moving)
        return self._noise(out, noisy, t), (*call.keys_values(), *seen)

    def _evaluate(
        self,
        z_t: Tensor,
        t: Tensor,
        text: Tensor,
        call: AttentionCall,
        control: Control | None,
        *,
        moving: bool,
    ) -> tuple[Tensor, KeyValues]:
        """The output of the last layer, and what the motion modules saw."""
        if self.motion is not None and moving:
            earlier = call.previous[len(self.layers) :] if call.previous else ()
            return evaluate(self.unet, self.motion, z_t, t, text, call, control or (), earlier)
        residuals: dict[str, Any] = {}
        if control is not None:
            residuals["down_block_additional_residuals"] = control[:-1]
            residuals["mid_block_additional_residual"] = control[-1]
        out: Tensor = self.unet(
            z_t, t, text, cross_attention_kwargs={"call": call}, return_dict=False, **residuals
        )[0]
        return out, ()

    def _noise(self, out: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The noise in `z_t` from the output of the last layer: the noise itself, or a velocity."""
        if self.signal is None:
            return out
        a = self.signal[t.round().long()].to(z_t.dtype).view(-1, 1, 1, 1)
        return a * out + (1 - a.square()).sqrt() * z_t

    def write_reference(self, latents: Tensor, text: Tensor, identity: Tensor | None) -> KeyValues:
        """Keys and values of clean portraits, at t = 0, once a portrait.

        Several references are concatenated along the tokens.

        Shapes:
            in: latents (B, 4, h, w) or (B, R, 4, h, w); text (B, 77, D); identity (B, N, D).
            out: 16 (K, V) pairs, each (B, R * S, C).
        """
        if latents.ndim == 4:
            latents = latents[:, None]
        still = torch.zeros(latents.shape[0], dtype=torch.long, device=latents.device)
        written = [
            self(z, still, Conditions(text, identity), moving=False)[1] for z in latents.unbind(1)
        ]
        return joined(written)
