"""AnimateDiff's motion modules (arXiv 2307.04725), one frame at a time: a frame sees those before it.

Public ones were trained on 16 frames that all see each other. Here the last frame of such a window is
computed alone: what every module saw of the earlier ones is handed on, as the frame cache hands on keys
and values. Later frames are never seen, so it streams. Weights have the names of diffusers'
`MotionAdapter`; v2 has a module in the middle of the UNet, v3 has none.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.nets.attention import AttentionCall, KeyValue, KeyValues, attend
from engine.nets.sd15_config import MOTION_PLACES, Sd15Config


def motion_arguments(config: Sd15Config) -> dict[str, Any]:
    """The sizes of `config` as the arguments of diffusers' `MotionAdapter`."""
    sizes = config.unet
    return {
        "block_out_channels": sizes.block_out_channels,
        "motion_layers_per_block": sizes.layers_per_block,
        "motion_num_attention_heads": sizes.heads,
        "motion_norm_num_groups": sizes.norm_num_groups,
        "motion_max_seq_length": MOTION_PLACES,
        "use_motion_mid_block": config.motion_modules == "v2",
    }


def build_motion(config: Sd15Config) -> MotionAdapter:
    """Modules with random weights that begin by changing nothing."""
    made = MotionAdapter(**motion_arguments(config))
    for name, parameter in made.named_parameters():
        if ".proj_out." in name:
            nn.init.zeros_(parameter)
    return made


def evaluate(
    unet: UNet2DConditionModel,
    adapter: MotionAdapter,
    z_t: Tensor,
    t: Tensor,
    text: Tensor,
    call: AttentionCall,
    control: tuple[Tensor, ...] = (),
    earlier: KeyValues = (),
) -> tuple[Tensor, KeyValues]:
    """What `unet` computes, with a motion module behind every attention (or block that has none).

    Shapes:
        in: z_t (B, C, h, w), t (B,), text (B, 77, D); control: 13 residuals or none; earlier: for each
            module what its two attentions saw of the n frames before, (B, n * S, C), or none.
        out: (B, 4, h, w), and what they saw of this one, (B, S, C).
    """
    motion = _Motion(adapter, earlier)
    told = {
        "encoder_hidden_states": text,
        "cross_attention_kwargs": {"call": call},
        "return_dict": False,
    }
    emb = unet.time_embedding(unet.get_time_embed(sample=z_t, timestep=t))

    def attended(block: Any, at: int, modules: Any, x: Tensor) -> Tensor:
        if getattr(block, "has_cross_attention", False):
            x = block.attentions[at](x, **told)[0]
        return x if modules is None else motion(modules.motion_modules[at], x)

    def layer(block: Any, at: int, modules: Any, x: Tensor) -> Tensor:
        if block.gradient_checkpointing and torch.is_grad_enabled():
            again = lambda x: attended(block, at, modules, block.resnets[at](x, emb))
            kept: Tensor = checkpoint(again, x, use_reentrant=False)
            return kept
        return attended(block, at, modules, block.resnets[at](x, emb))

    x = unet.conv_in(z_t)
    skips = [x]
    for block, modules in zip(unet.down_blocks, adapter.down_blocks, strict=True):
        for at in range(len(block.resnets)):
            x = layer(block, at, modules, x)
            skips.append(x)
        for down in block.downsamplers or ():
            x = down(x)
            skips.append(x)
    if control:
        skips = [skip + added for skip, added in zip(skips, control[:-1], strict=True)]
    middle = unet.mid_block
    x = middle.resnets[0](x, emb)
    for at, resnet in enumerate(middle.resnets[1:]):
        x = resnet(attended(middle, at, adapter.mid_block, x), emb)
    if control:
        x = x + control[-1]
    for block, modules in zip(unet.up_blocks, adapter.up_blocks, strict=True):
        for at in range(len(block.resnets)):
            x = layer(block, at, modules, torch.cat([x, skips.pop()], 1))
        for up in block.upsamplers or ():
            x = up(x)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x))), motion.seen()


class _Motion:
    """Runs the modules, each with what it saw before, and keeps what it sees now."""

    def __init__(self, adapter: MotionAdapter, earlier: KeyValues) -> None:
        middle = [] if adapter.mid_block is None else [adapter.mid_block]
        groups = [*adapter.down_blocks, *middle, *adapter.up_blocks]
        order = [module for group in groups for module in group.motion_modules]
        self._place = {id(module): i for i, module in enumerate(order)}
        self._earlier = earlier
        self._seen: dict[int, KeyValue] = {}

    def __call__(self, module: Any, x: Tensor) -> Tensor:
        place = self._place[id(module)]
        earlier = self._earlier[place] if self._earlier else None
        out, self._seen[place] = module_step(module, x, earlier)
        return out

    def seen(self) -> KeyValues:
        """What each module saw, in the order that data flows."""
        return tuple(self._seen[i] for i in range(len(self._place)))


def module_step(module: Any, x: Tensor, earlier: KeyValue | None) -> tuple[Tensor, KeyValue]:
    """One frame through one temporal transformer of diffusers.

    Shapes:
        in: x (B, C, h, w); earlier: what its two attentions saw of n frames, each (B, n * h * w, C).
        out: (B, C, h, w), and what they saw of this one, each (B, h * w, C).
    """
    tokens = module.proj_in(module.norm(x).flatten(2).transpose(1, 2))
    [block] = module.transformer_blocks
    seen = []
    for at, (norm, attention) in enumerate(
        ((block.norm1, block.attn1), (block.norm2, block.attn2))
    ):
        seen.append(norm(tokens))
        before = None if earlier is None else earlier[at]
        tokens = tokens + _through_time(attention, block.pos_embed, seen[-1], before)
    tokens = tokens + block.ff(block.norm3(tokens))
    out = module.proj_out(tokens).transpose(1, 2).reshape(x.shape)
    return x + out, (seen[0], seen[1])


def _through_time(attention: Any, place: Any, own: Tensor, before: Tensor | None) -> Tensor:
    """Each place of a frame over the same place of the frames before and itself: (B, S, C)."""
    B, S, C = own.shape
    frames = own[:, None]
    if before is not None:
        frames = torch.cat([before.expand(B, -1, -1).unflatten(1, (-1, S)), frames], 1)
    line = place(frames.transpose(1, 2).flatten(0, 1))  # (B * S, n + 1, C)
    query, key, value = attention.to_q(line[:, -1:]), attention.to_k(line), attention.to_v(line)
    out: Tensor = attention.to_out[0](attend(query, key, value, attention.heads))
    return out.view(B, S, C)
