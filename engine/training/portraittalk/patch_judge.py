"""What a student's frames are compared by: a patch discriminator, and perceptual distances."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import ConfigError

Likeness = Literal["lpips", "random", "none"]


class PatchJudge(nn.Module):
    """A discriminator: scores how real each patch looks, given the drawn landmarks.

    Shapes:
        in: frames (B, 3, S, S) in [-1, 1], drawn (B, 3, S, S) in [0, 1].
        out: scores (B, 1, S / 8, S / 8).
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        layers: list[nn.Module] = []
        for a, b in zip((6, *widths[:-1]), widths, strict=True):
            layers += [norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, norm(nn.Conv2d(widths[-1], 1, 3, padding=1)))

    def forward(self, frames: Tensor, drawn: Tensor) -> Tensor:
        """Score the patches; the lines may have been drawn smaller than the frames."""
        if drawn.shape != frames.shape:
            drawn = F.interpolate(drawn, frames.shape[-2:])
        scores: Tensor = self.body(torch.cat([frames, drawn * 2 - 1], 1))
        return scores


class RandomFeatures(nn.Module):
    """Distance in three layers of an untrained network: a stand-in where LPIPS must not be fetched.

    It compares edges and textures at three scales, but not as people see likeness.
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.ModuleList(
                nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 24), (24, 48), (48, 96))
            )
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] twice -> (B,)."""
        total = torch.zeros(len(a), device=a.device)
        for layer in self.layers:
            a, b = F.leaky_relu(layer(a), 0.2), F.leaky_relu(layer(b), 0.2)
            scale = b.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-4
            total = total + ((a - b) / scale).abs().mean((1, 2, 3))
        return total / len(self.layers)


def likeness(kind: Likeness, cache: Path | None) -> nn.Module | None:
    """The perceptual distance of that name.

    Raises:
        ConfigError: LPIPS is asked for without a folder to keep its weights in.
    """
    if kind == "none":
        return None
    if kind == "random":
        return RandomFeatures()
    if cache is None:
        raise ConfigError(
            'perceptual = "lpips" needs --cache FOLDER, where its weights (a download) are kept; '
            'or set perceptual = "random" or "none"'
        )
    from engine.loaders.lpips import Lpips

    return Lpips(cache)
