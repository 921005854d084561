"""Attention processors for diffusers' UNet: decoupled identity, reference and previous keys/values.

A call leaves nothing on a module: an `AttentionCall` goes in through
`cross_attention_kwargs`, each self-attention leaves its own keys and values in it, and the caller
takes them out. The processors define `__call__`, not `forward`: diffusers reads its signature to choose
which keyword arguments to pass on. Decoupled cross-attention is that of IP-Adapter (arXiv 2308.06721).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]  # K and V of one self-attention, each (B, S, C)
KeyValues = tuple[KeyValue, ...]  # one pair a self-attention, in the order of `layer_order`


@dataclass(slots=True)
class AttentionCall:
    """What one evaluation of a UNet or ControlNet carries to its attention layers and back.

    Shapes: identity (B, N, C); scale (layers,) or (B, layers); landmarks (B, 68, C); placement
    (B, 8, C); reference and previous: one (K, V) a layer, batch B or 1; weight (B or 1, R) of each of the
    R portraits in `reference`; features: AnimateNet's (B, C, h, w) of each layer, for the layers that
    attend to them, and control (B or 1,) their weight.
    """

    identity: Tensor | None = None
    scale: Tensor | None = None
    reference: KeyValues | None = None
    previous: KeyValues | None = None
    weight: Tensor | None = None
    landmarks: Tensor | None = None
    placement: Tensor | None = None
    features: tuple[Tensor, ...] | None = None
    control: Tensor | None = None
    own: dict[int, KeyValue] = field(default_factory=dict)

    def keys_values(self) -> KeyValues:
        """Keys and values that the self-attentions of this call computed, in layer order."""
        return tuple(self.own[i] for i in range(len(self.own)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, S, C) -> (B, heads, S, C / heads)."""
    S, C = map(int, x.shape[1:])  # constants of an exported graph, whose rows alone are free
    return x.view(-1, S, heads, C // heads).transpose(1, 2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, weights: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention: (B, S, C), (B, T, C), (B, T, C) -> (B, S, C).

    `weights` (B or 1, T) multiply what each token gets before the shares are brought to 1: a token of
    weight 0 is as if it were not there.
    """
    q, k, v = (split_heads(x, heads) for x in (query, key, value))
    S, C = map(int, query.shape[1:])
    more = None if weights is None else weights.log().to(q.dtype)[:, None, None]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=more, scale=(C // heads) ** -0.5)
    return mixed.transpose(1, 2).reshape(-1, S, C)


def for_rows(x: Tensor, rows: int) -> Tensor:
    """Cached tokens (B or 1, S, C) of one stream, or of each, as those of every row (B, S, C)."""
    return x if x.shape[0] == rows else x.expand(rows, -1, -1)


def token_weights(own: int, cached: int, total: int, weight: Tensor) -> Tensor:
    """Weights (B, total) of `own` tokens at 1, then `cached` ones of R portraits, then others at 1.

    Shapes:
        in: weight (B, R), one a portrait.
    """
    portraits = weight[:, :, None].expand(-1, -1, cached // weight.shape[1]).flatten(1)
    return F.pad(portraits, (own, total - own - cached), value=1.0)


def with_cached(own: KeyValue, *cached: KeyValue | None) -> KeyValue:
    """Append cached keys and values to `own` along the tokens.

    Shapes:
        in: own K and V (B, S, C); cached K and V (B or 1, T, C), None for none.
        out: K and V (B, S + the sum of T, C); `own` itself when nothing is cached.
    """
    B = own[0].shape[0]  # not len(): a traced graph would have it for a constant
    pairs = [own, *((for_rows(k, B), for_rows(v, B)) for k, v in filter(None, cached))]
    if len(pairs) == 1:
        return own
    return torch.cat([k for k, _ in pairs], 1), torch.cat([v for _, v in pairs], 1)


def joined(parts: Sequence[KeyValues]) -> KeyValues:
    """Keys and values of several portraits or frames, each (B, S, C), one behind the other: (B, sum, C)."""
    if len(parts) == 1:
        return parts[0]
    return tuple(
        (torch.cat([k for k, _ in layer], 1), torch.cat([v for _, v in layer], 1))
        for layer in zip(*parts, strict=True)
    )


class SelfAttention(nn.Module):
    """Self-attention over [current, reference, previous]; records its own keys and values."""

    def __init__(self, layer: int, *, previous: bool) -> None:
        super().__init__()
        self.layer = layer
        self.previous = previous  # False: the cached frame is not attended to

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        call: AttentionCall | None = None,
    ) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        call = call or AttentionCall()
        own = (attn.to_k(hidden_states), attn.to_v(hidden_states))
        call.own[self.layer] = own
        reference = call.reference[self.layer] if call.reference else None
        previous = call.previous[self.layer] if call.previous and self.previous else None
        key, value = with_cached(own, reference, previous)
        weights = None
        if reference is not None and call.weight is not None:
            sizes = hidden_states.shape[1], reference[0].shape[1], key.shape[1]
            weights = token_weights(*sizes, call.weight)
        mixed = attend(attn.to_q(hidden_states), key, value, attn.heads, weights)
        out: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return out


class CrossAttention(nn.Module):
    """Text cross-attention, unchanged: what diffusers itself computes.

    Args:
        layer: its place in the order down, middle, up.

    Attributes:
        animation: adds what AnimateNet's features say; None where they come as residuals.
    """

    def __init__(self, layer: int = 0) -> None:
        super().__init__()
        self.layer = layer
        self.animation: nn.Module | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        call: AttentionCall | None = None,
    ) -> Tensor:
        """(B, S, C), (B, T, D) -> (B, S, C)."""
        mixed = self.mix(attn, attn.to_q(hidden_states), encoder_hidden_states, call)
        out: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        if self.animation is None or call is None or call.features is None:
            return out
        added: Tensor = self.animation(hidden_states, call.features[self.layer])
        if call.control is not None:
            added = call.control.to(added.dtype).view(-1, 1, 1) * added
        return out + added

    def mix(self, attn: Any, query: Tensor, text: Tensor, call: AttentionCall | None) -> Tensor:
        """Query (B, S, C) over the text (B, T, D), before the output projection."""
        return attend(query, attn.to_k(text), attn.to_v(text), attn.heads)


class DecoupledCrossAttention(CrossAttention):
    """One query; keys and values of the text unchanged, of the identity separate, with a scale.

    Shapes:
        to_k_ip, to_v_ip: (C, D), the names of IP-Adapter's files.
    """

    def __init__(self, layer: int, channels: int, context: int) -> None:
        super().__init__(layer)
        self.to_k_ip = nn.Linear(context, channels, bias=False)
        self.to_v_ip = nn.Linear(context, channels, bias=False)

    def mix(self, attn: Any, query: Tensor, text: Tensor, call: AttentionCall | None) -> Tensor:
        """Attn(Q, text) + scale * Attn(Q, identity): (B, S, C), (B, T, D) -> (B, S, C)."""
        mixed = super().mix(attn, query, text, call)
        if call is None or call.identity is None:
            return mixed
        key, value = self.to_k_ip(call.identity), self.to_v_ip(call.identity)
        added = attend(query, key, value, attn.heads)
        if call.scale is None:
            return mixed + added
        return mixed + call.scale[..., self.layer].to(added.dtype).view(-1, 1, 1) * added


class UnifiedCrossAttention(CrossAttention):
    """The ablation: identity tokens are appended to the text and share its key and value projections."""

    def mix(self, attn: Any, query: Tensor, text: Tensor, call: AttentionCall | None) -> Tensor:
        """Attn(Q, [text, identity]): (B, S, C), (B, T, D) -> (B, S, C)."""
        if call is None or call.identity is None:
            return super().mix(attn, query, text, call)
        words = text.shape[1]
        text = torch.cat([text, call.identity.to(text.dtype)], 1)
        weights = None
        if call.scale is not None:
            scale = call.scale[..., self.layer].view(-1, 1)
            weights = token_weights(words, text.shape[1] - words, text.shape[1], scale)
        return attend(query, attn.to_k(text), attn.to_v(text), attn.heads, weights)


def layer_order(names: Iterable[str]) -> list[str]:
    """Names of transformer blocks in the order data flows: down, middle, up.

    `names` are those of `attn_processors`; that dictionary has another order (middle last), by which
    public IP-Adapter files are numbered.
    """
    place = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    blocks = dict.fromkeys(name.rpartition(".attn")[0] for name in names)
    return sorted(blocks, key=lambda name: place[name.partition(".")[0]])


def channels_of(model: nn.Module, block: str) -> tuple[int, int, int]:
    """Channels, context channels and heads of the cross-attention of transformer block `block`."""
    attn: Any = model.get_submodule(f"{block}.attn2")
    return attn.to_q.in_features, attn.to_k.in_features, attn.heads
