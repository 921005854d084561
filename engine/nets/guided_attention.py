"""Attentions by which AnimateNet is told things, and IdentityNet is told by it.

Each has an output projection of its own that starts at zero, so what is freshly loaded is unchanged.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from engine.nets.attention import AttentionCall, CrossAttention, SelfAttention, attend, for_rows


class ZeroAttention(nn.Module):
    """A cross-attention added to a block; its output projection starts at zero."""

    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(context, channels, bias=False)
        self.value = nn.Linear(context, channels, bias=False)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, S, C), (B, T, D) -> what to add, (B, S, C)."""
        out: Tensor = self.out(
            attend(self.query(x), self.key(tokens), self.value(tokens), self.heads)
        )
        return out


class FeatureAttention(ZeroAttention):
    """A cross-attention of one of IdentityNet's layers to AnimateNet's features at the same resolution."""

    def __init__(self, channels: int, features: int, heads: int) -> None:
        super().__init__(channels, features, heads)
        self.norm = nn.LayerNorm(features)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, S, C), features (B, D, h, w) -> what to add, (B, S, C)."""
        return super().forward(x, self.norm(tokens.flatten(2).transpose(1, 2)))


class GuidedCrossAttention(CrossAttention):
    """ControlNet's text attention plus landmark and placement attentions of their own."""

    def __init__(self, channels: int, context: int, heads: int, *, placement: bool) -> None:
        super().__init__()
        self.landmarks = ZeroAttention(channels, context, heads)
        self.placement = ZeroAttention(channels, context, heads) if placement else None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        call: AttentionCall | None = None,
    ) -> Tensor:
        """(B, S, C), (B, T, D) -> (B, S, C)."""
        out = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, call)
        if call is None:
            return out
        if call.landmarks is not None:
            out = out + self.landmarks(hidden_states, call.landmarks)
        if self.placement is not None and call.placement is not None:
            out = out + self.placement(hidden_states, call.placement)
        return out


class TemporalSelfAttention(SelfAttention):
    """ControlNet's self-attention plus a zero-initialised attention to the previous frame's cache.

    The current frame's own keys and values are recorded for the next frame. Unlike the UNet's, the
    cached tokens do not join the self-attention, so a public ControlNet is unchanged by them.
    """

    def __init__(self, layer: int, channels: int, *, previous: bool) -> None:
        super().__init__(layer, previous=False)
        self.query = nn.Linear(channels, channels, bias=False) if previous else None
        self.out = nn.Linear(channels, channels) if previous else None
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        call: AttentionCall | None = None,
    ) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        out = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, call)
        if call is None or call.previous is None or self.query is None or self.out is None:
            return out
        B = hidden_states.shape[0]
        key, value = (for_rows(x, B) for x in call.previous[self.layer])
        added = attend(self.query(hidden_states), key, value, attn.heads)
        return out + self.out(added)
