"""Face embeddings -> identity tokens, with the key names of IP-Adapter-FaceID's public files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.nets.sd15_config import Sd15Config


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

    @classmethod
    def build(cls, config: Sd15Config) -> IdentityProjection:
        """With random weights."""
        return cls(config.face_embedding, config.unet.cross_attention_dim, config.identity_tokens)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compute the tokens; shapes as above."""
        B, R, _ = embeddings.shape
        tokens = self.proj(embeddings).view(B, R * self.count, -1)
        out: Tensor = self.norm(tokens)
        return out


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
