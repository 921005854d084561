"""Face embeddings -> identity tokens, with the key names of IP-Adapter-FaceID's public files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.nets.sd15_config import PatchSizes, Sd15Config

HEAD = 64  # channels of a head of FaceID-Plus
LAYERS = 4  # of FaceID-Plus


class IdentityProjection(nn.Module):
    """512 -> 1024, GELU, -> N x D, LayerNorm: 4 tokens (FaceID) or 16 (portrait) a reference.

    Tokens of several references are concatenated. Without an identity (for classifier-free guidance)
    the embedding is zero, as IP-Adapter was trained.

    Shapes:
        in: embeddings (B, R, E) of unit length. out: (B, R * N, D).
    """

    def __init__(self, embedding: int, context: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.proj = nn.Sequential(
            nn.Linear(embedding, 2 * embedding),
            nn.GELU(),
            nn.Linear(2 * embedding, count * context),
        )
        self.norm = nn.LayerNorm(context)

    @staticmethod
    def build(config: Sd15Config) -> IdentityProjection:
        """Of the kind that `config` says, with random weights."""
        context, count = config.unet.cross_attention_dim, config.identity_tokens
        if config.projection == "plus":
            return PlusProjection(config.face_embedding, context, count, config.patches)
        return IdentityProjection(config.face_embedding, context, count)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute the tokens; shapes as above."""
        B, R, _ = embeddings.shape
        tokens = self.proj(embeddings).view(B, R * self.count, -1)
        out: Tensor = self.norm(tokens)
        return out


class PatchAttention(nn.Module):
    """Tokens attend to patches and to themselves; `PerceiverAttention` of IP-Adapter's code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        inner = self.heads * HEAD
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, patches: Tensor, tokens: Tensor) -> Tensor:
        """Patches (B, P, D), tokens (B, N, D) -> (B, N, D)."""
        tokens = self.norm2(tokens)
        seen = torch.cat([self.norm1(patches), tokens], 1)
        query, (key, value) = self.to_q(tokens), self.to_kv(seen).chunk(2, -1)
        q, k, v = (
            x.view(len(x), -1, self.heads, HEAD).transpose(1, 2) for x in (query, key, value)
        )
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.to_out(out)


class PatchReader(nn.Module):
    """Tokens read patches in four layers; `FacePerceiverResampler` of IP-Adapter's code."""

    def __init__(self, context: int, patches: PatchSizes) -> None:
        super().__init__()
        self.proj_in = nn.Linear(patches.width, context)
        self.proj_out = nn.Linear(context, context)
        self.norm_out = nn.LayerNorm(context)
        self.layers = nn.ModuleList(
            nn.ModuleList([PatchAttention(context), _feed_forward(context)]) for _ in range(LAYERS)
        )

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """Tokens (B, N, D), patches (B, P, C) -> (B, N, D)."""
        patches = self.proj_in(patches)
        for layer in self.layers:
            attend, feed = layer.children()
            tokens = tokens + attend(patches, tokens)
            tokens = tokens + feed(tokens)
        return self.norm_out(self.proj_out(tokens))


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


class PlusProjection(IdentityProjection):
    """FaceID-Plus v2: FaceID's tokens, and what they read in CLIP's patches of the face added to them.

    Attributes:
        structure: weight of what is read (`s_scale` of IP-Adapter's code): how much of the face's
            build and of this picture of it shows, beside who it is.
        nothing: (P, C) patches that stand for no identity.

    Shapes:
        in: embeddings (B, R, E + P * C): of a face, then its patches, row by row; a zero embedding is
        no identity. out: (B, R * N, D).
    """

    nothing: Tensor

    def __init__(self, embedding: int, context: int, count: int, patches: PatchSizes) -> None:
        super().__init__(embedding, context, count)
        self.structure = 1.0
        self.perceiver_resampler = PatchReader(context, patches)
        nothing = torch.zeros(patches.count, patches.width)
        self.register_buffer("nothing", nothing, persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute the tokens; shapes as above."""
        P, C = self.nothing.shape
        face, seen = embeddings.split([embeddings.shape[-1] - P * C, P * C], -1)
        nobody = (embeddings == 0).all(-1)[..., None, None]
        patches = torch.where(nobody, self.nothing, seen.unflatten(-1, (P, C))).flatten(0, 1)
        tokens = super().forward(face)
        apart = tokens.reshape(len(patches), self.count, -1)
        return tokens + self.structure * self.perceiver_resampler(apart, patches).view_as(tokens)


def mix(people: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """A mixed identity: the weighted mean of several people's tokens, weights divided by their sum.

    Shapes:
        in: each (B, N, D), the same number of references for everybody. out: (B, N, D).

    Raises:
        ValueError: token counts differ, or the weights are negative or sum to zero.
    """
    if len({p.shape[1] for p in people}) != 1:
        raise ValueError(
            f"people have {[p.shape[1] for p in people]} tokens; give each the same number of portraits"
        )
    if len(weights) != len(people) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"weights {list(weights)} must be >= 0, one a person, and not all zero")
    share = torch.tensor(weights, dtype=people[0].dtype, device=people[0].device)
    return torch.einsum("p,pbnd->bnd", share / share.sum(), torch.stack(list(people)))
