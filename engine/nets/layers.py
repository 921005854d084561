"""Layers shared by the tiny image networks. No norms over pixels: they would cancel the gain of int8."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions with a residual; scale and shift from an embedding when one is given."""

    def __init__(self, channels: int, out: int | None = None, embedding: int = 0) -> None:
        super().__init__()
        out = out or channels
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.film = nn.Linear(embedding, 2 * out) if embedding else None
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(B, C, h, w) -> (B, out, h, w)."""
        h = self.first(F.relu(x))
        if self.film is not None and embedding is not None:
            scale, shift = self.film(embedding)[:, :, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.second(F.relu(h))


class TokenNorm(nn.Module):
    """Root-mean-square norm over the channels of each token: (B, S, C) -> (B, S, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each token on its own."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention: (B, S, C), (B, T, C), (B, T, C) -> (B, S, C)."""
    B, S, C = query.shape

    def split(x: Tensor) -> Tensor:
        return x.view(B, -1, heads, C // heads).transpose(1, 2)

    q, k, v = split(query), split(key), split(value)
    weight = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(C // heads), -1)
    return (weight @ v).transpose(1, 2).reshape(B, S, C)


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Sinusoids of `t` in [0, 1]: (B,) -> (B, channels)."""
    half = channels // 2
    frequency = torch.exp(-math.log(1e4) * torch.arange(half, device=t.device) / half)
    angle = t[:, None] * 1000 * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)


def tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


def feature_map(x: Tensor, side: int) -> Tensor:
    """(B, side * side, C) -> (B, C, side, side)."""
    return x.transpose(1, 2).unflatten(2, (side, side))
