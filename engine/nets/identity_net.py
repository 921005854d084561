"""IdentityNet: the denoising UNet, conditioned on the identity of the portrait.

After PortraitTalk: identity tokens enter by decoupled cross-attention (one query, keys and values of
their own, a scale); self-attention sees [current, reference, previous frame] (MAGIC-Talk's
ReferenceNet writes the reference part once at enrolment, the frame cache keeps the previous one).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.nets.animate_net import TokenMlp
from engine.nets.codec import LATENT_CHANNELS
from engine.nets.layers import ResBlock, TokenNorm, attend, feature_map, timestep_embedding, tokens

EMBEDDING = 192
IDENTITY_TOKENS = 4
IDENTITY_CHANNELS = 128

KeyValue = tuple[Tensor, ...]  # one (B, S, 2 C) tensor a self-attention


class DecoupledAttention(nn.Module):
    """Self-attention over [current, reference, previous], then cross-attention to the identity."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = TokenNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.identity_norm = TokenNorm(channels)
        self.identity_query = nn.Linear(channels, channels, bias=False)
        self.identity_key_value = nn.Linear(IDENTITY_CHANNELS, 2 * channels, bias=False)
        self.identity_out = nn.Linear(channels, channels)
        for layer in (self.out, self.identity_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def write(self, x: Tensor) -> Tensor:
        """Keys and values of a feature map (B, C, h, w) -> (B, h * w, 2 C)."""
        kept: Tensor = self.key_value(self.norm(tokens(x)))
        return kept

    def forward(
        self, x: Tensor, identity: Tensor, reference: Tensor, previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend; also returns the own keys and values for the next frame.

        Shapes:
            in: x (B, C, h, w), identity (B, N, 128), reference and previous (B, T, 2 C).
            out: (B, C, h, w), keys and values (B, h * w, 2 C).
        """
        flat = tokens(x)
        own = self.write(x)
        key, value = torch.cat([own, reference, previous], 1).chunk(2, -1)
        flat = flat + self.out(attend(self.query(self.norm(flat)), key, value, self.heads))
        key, value = self.identity_key_value(identity).chunk(2, -1)
        query = self.identity_query(self.identity_norm(flat))
        flat = flat + self.identity_out(attend(query, key, value, self.heads))
        return feature_map(flat, x.shape[-1]), own


class ReferenceNet(nn.Module):
    """Reference latents -> features at the attention levels and identity tokens, once a portrait.

    Shapes:
        in: latents (B, 16, 32, 32).
        out: (B, c1, 16, 16), (B, c2, 8, 8), tokens (B, 4, 128).
    """

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        _, c1, c2 = widths
        self.enter = nn.Conv2d(LATENT_CHANNELS, 64, 3, padding=1)
        self.block0 = ResBlock(64)
        self.down1 = nn.Conv2d(64, c1, 3, stride=2, padding=1)
        self.block1 = ResBlock(c1)
        self.down2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1)
        self.block2 = ResBlock(c2)
        self.identity = TokenMlp(c2, IDENTITY_TOKENS, IDENTITY_CHANNELS)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute features and tokens; shapes as above."""
        h1 = self.block1(self.down1(self.block0(self.enter(latents))))
        h2 = self.block2(self.down2(h1))
        return h1, h2, self.identity(h2.mean((2, 3)))


class IdentityNet(nn.Module):
    """Predicts the clean latents z_0 from noisy ones, AnimateNet's guidance and the identity.

    Shapes:
        in: z_t (B, 16, 32, 32), t (B,) in [0, 1], reference latents (B, 16, 32, 32), guidance of
            AnimateNet, identity tokens, reference and previous keys/values (three tensors each).
        out: z_0 (B, 16, 32, 32), own keys/values (three tensors).
    """

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        a, b, c = widths
        self.time = nn.Sequential(
            nn.Linear(64, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING)
        )
        self.enter = nn.Conv2d(2 * LATENT_CHANNELS, a, 3, padding=1)
        self.down_a = ResBlock(a, embedding=EMBEDDING)
        self.to_b = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.down_b = ResBlock(b, embedding=EMBEDDING)
        self.attention_down = DecoupledAttention(b)
        self.to_c = nn.Conv2d(b, c, 3, stride=2, padding=1)
        self.mid_first = ResBlock(c, embedding=EMBEDDING)
        self.attention_mid = DecoupledAttention(c)
        self.mid_second = ResBlock(c, embedding=EMBEDDING)
        self.from_c = nn.Conv2d(c, b, 1)
        self.up_b = ResBlock(2 * b, b, embedding=EMBEDDING)
        self.attention_up = DecoupledAttention(b)
        self.from_b = nn.Conv2d(b, a, 1)
        self.up_a = ResBlock(2 * a, a, embedding=EMBEDDING)
        self.last = ResBlock(a, embedding=EMBEDDING)
        self.leave = nn.Conv2d(a, LATENT_CHANNELS, 3, padding=1)

    def write(self, h1: Tensor, h2: Tensor) -> KeyValue:
        """Reference keys/values from ReferenceNet's features (B, c1, 16, 16) and (B, c2, 8, 8)."""
        return (
            self.attention_down.write(h1),
            self.attention_mid.write(h2),
            self.attention_up.write(h1),
        )

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        reference_latents: Tensor,
        guidance: tuple[Tensor, Tensor, Tensor],
        identity: Tensor,
        reference: KeyValue,
        previous: KeyValue,
    ) -> tuple[Tensor, KeyValue]:
        """One evaluation of the denoiser; shapes as above."""
        g0, g1, g2 = guidance
        e = F.silu(self.time(timestep_embedding(t, 64).to(z_t.dtype)))
        a = self.down_a(self.enter(torch.cat([z_t, reference_latents], 1)) + g0, e)
        b = self.down_b(self.to_b(a) + g1, e)
        b, kept_down = self.attention_down(b, identity, reference[0], previous[0])
        h = self.mid_first(self.to_c(b) + g2, e)
        h, kept_mid = self.attention_mid(h, identity, reference[1], previous[1])
        h = self.mid_second(h, e)
        h = F.interpolate(self.from_c(h), scale_factor=2.0, mode="nearest")
        h = self.up_b(torch.cat([h, b], 1), e)
        h, kept_up = self.attention_up(h, identity, reference[2], previous[2])
        h = F.interpolate(self.from_b(h), scale_factor=2.0, mode="nearest")
        h = self.last(self.up_a(torch.cat([h, a], 1), e), e)
        return self.leave(F.relu(h)), (kept_down, kept_mid, kept_up)
