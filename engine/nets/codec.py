"""The tiny autoencoder: a 128 px crop to 16 x 32 x 32 latents and back, combined with the warped crop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.nets.layers import ResBlock

LATENT_CHANNELS = 16


class Encoder(nn.Module):
    """Crop (B, 3, 128, 128) in [-1, 1] -> latents (B, 16, 32, 32) of unit mean square."""

    def __init__(self, widths: tuple[int, int] = (32, 64)) -> None:
        super().__init__()
        a, b = widths
        self.body = nn.Sequential(
            nn.Conv2d(12, a, 3, padding=1),
            ResBlock(a),
            nn.Conv2d(a, b, 3, stride=2, padding=1),
            ResBlock(b),
            ResBlock(b),
            nn.Conv2d(b, LATENT_CHANNELS, 1),
        )

    def forward(self, crop: Tensor) -> Tensor:
        """Encode; the latents of one crop have mean square 1."""
        z: Tensor = self.body(F.pixel_unshuffle(crop, 2))
        return z * torch.rsqrt(z.square().mean((1, 2, 3), keepdim=True) + 1e-4)


class Decoder(nn.Module):
    """Latents and the warped crop -> painted crop and the weight of the warp in it.

    Shapes:
        in: latents (B, 16, 32, 32), warped (B, 3, 128, 128), opening (B, 1, 64, 64).
        out: crop (B, 3, 128, 128) in [-1, 1] (not clipped), weight of the warp (B, 1, 128, 128) in
            [0, 1].
    """

    def __init__(self, widths: tuple[int, int] = (48, 24)) -> None:
        super().__init__()
        a, b = widths
        self.enter = nn.Conv2d(LATENT_CHANNELS, a, 3, padding=1)
        self.coarse = ResBlock(a)
        self.up = nn.Conv2d(a, 4 * b, 1)
        self.see = nn.Conv2d(13, b, 3, padding=1)
        self.fine = nn.Sequential(ResBlock(b), ResBlock(b))
        self.leave = nn.Conv2d(b, 16, 3, padding=1)
        self.smooth = nn.Conv2d(4, 4, 3, padding=1)
        for layer in (self.up, self.leave):  # equal sub-pixels at the start: no checkerboard (ICNR)
            with torch.no_grad():
                layer.weight.copy_(layer.weight[::4].repeat_interleave(4, 0))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.smooth.weight)
        nn.init.zeros_(self.smooth.bias)  # type: ignore[arg-type]

    def forward(self, latents: Tensor, warped: Tensor, opening: Tensor) -> tuple[Tensor, Tensor]:
        """Paint what the warp cannot show and blend both."""
        h = F.pixel_shuffle(self.up(self.coarse(self.enter(latents))), 2)
        h = h + self.see(torch.cat([F.pixel_unshuffle(warped, 2), opening], 1))
        out = F.pixel_shuffle(self.leave(F.relu(self.fine(h))), 2)
        out = out + self.smooth(out)
        trust = torch.sigmoid(out[:, 3:] + 1)
        return trust * warped + (1 - trust) * out[:, :3], trust
