"""AnimateNet: landmarks, head placement and the previous frame -> guidance for IdentityNet.

After PortraitTalk: a ControlNet-shaped branch whose zero-initialised outputs are added to the
denoiser, with two cross-attentions of its own, one over landmark tokens, one over placement tokens.
It runs once a frame, not once a denoising step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.face.topology import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LINE_GROUPS,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
)
from engine.nets.codec import LATENT_CHANNELS
from engine.nets.layers import ResBlock, TokenNorm, attend, feature_map, tokens

PLACEMENT = 6  # yaw, pitch, roll [rad], x, y [inter-ocular], log scale
LIP_POINTS = (*OUTER_UPPER_LIP, *OUTER_LOWER_LIP, *INNER_UPPER_LIP, *INNER_LOWER_LIP)


class CrossAttention(nn.Module):
    """Cross-attention to a few condition tokens; its output starts at zero."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = TokenNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, S, C), (B, T, C) -> what to add, (B, S, C)."""
        key, value = self.key_value(condition).chunk(2, -1)
        added: Tensor = self.out(attend(self.query(self.norm(x)), key, value, self.heads))
        return added


class TokenMlp(nn.Module):
    """A vector -> `count` condition tokens."""

    def __init__(self, size: int, count: int, channels: int) -> None:
        super().__init__()
        self.count = count
        self.body = nn.Sequential(nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, count * channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, size) -> (B, count, channels)."""
        out: Tensor = self.body(x)
        return out.unflatten(1, (self.count, -1))


class AnimateNet(nn.Module):
    """Guidance at the three levels of IdentityNet.

    Shapes:
        in: maps (B, 2 G + 1, 32, 32), warped latents (B, 16, 32, 32), previous latents
            (B, 16, 32, 32), target landmarks (B, 478, 2) in crop units, placement (B, 6).
        out: (B, c0, 32, 32), (B, c1, 16, 16), (B, c2, 8, 8).
    """

    def __init__(self, widths: tuple[int, int, int], stem: int = 32) -> None:
        super().__init__()
        c0, c1, c2 = widths
        maps = 2 * len(LINE_GROUPS) + 1
        self.enter = nn.Conv2d(maps + 2 * LATENT_CHANNELS, stem, 3, padding=1)
        self.block0 = ResBlock(stem)
        self.down1 = nn.Conv2d(stem, 64, 3, stride=2, padding=1)
        self.block1 = ResBlock(64)
        self.down2 = nn.Conv2d(64, 96, 3, stride=2, padding=1)
        self.block2 = ResBlock(96)
        self.landmark_tokens = TokenMlp(2 * len(LIP_POINTS), 8, 96)
        self.placement_tokens = TokenMlp(PLACEMENT, 4, 96)
        self.landmark_attention = CrossAttention(96)
        self.placement_attention = CrossAttention(96)
        self.out0 = nn.Conv2d(stem, c0, 1)
        self.out1 = nn.Conv2d(64, c1, 1)
        self.out2 = nn.Conv2d(96, c2, 1)

    def forward(
        self, maps: Tensor, warped: Tensor, previous: Tensor, landmarks: Tensor, placement: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the guidance of one frame; shapes as above."""
        h0 = self.block0(self.enter(torch.cat([maps, warped, previous], 1)))
        h1 = self.block1(self.down1(h0))
        h2 = self.block2(self.down2(h1))
        lips = (landmarks[:, list(LIP_POINTS)].flatten(1) - 0.5) * 4
        x = tokens(h2)
        x = x + self.landmark_attention(x, self.landmark_tokens(lips))
        x = x + self.placement_attention(x, self.placement_tokens(placement))
        return self.out0(h0), self.out1(h1), self.out2(feature_map(x, h2.shape[-1]))
