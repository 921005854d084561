"""A pose guider, lighter than a ControlNet: the drawn face as one map added after `conv_in`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from engine.nets.attention import KeyValues
from engine.nets.conditions import Guidance
from engine.nets.sd15_config import Sd15Config


class PoseGuider(nn.Module):
    """The stem of a ControlNet alone; its last convolution starts at zero.

    It is called like `AnimateControlNet` and gives one map instead of 13 residuals; landmarks and
    placement reach it only through the control image.

    Shapes:
        in: the guidance's image (B, 3, 8 h, 8 w) in [0, 1]. out: one map (B, C, h, w).
    """

    def __init__(self, channels: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        pairs = zip(channels[:-1], channels[1:], strict=True)
        self.blocks = nn.ModuleList(
            layer
            for a, b in pairs
            for layer in (nn.Conv2d(a, a, 3, padding=1), nn.Conv2d(a, b, 3, padding=1, stride=2))
        )
        self.conv_out = nn.Conv2d(channels[-1], out, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    @classmethod
    def build(cls, config: Sd15Config) -> PoseGuider:
        """With random weights."""
        return cls(config.unet.conditioning_channels, config.unet.block_out_channels[0])

    def forward(
        self,
        z_t: Tensor,
        t: Tensor,
        text: Tensor,
        guidance: Guidance,
        previous: KeyValues | None = None,
    ) -> tuple[tuple[Tensor, ...], KeyValues]:
        """Compute the map; only the image is read, and there is nothing to cache. Shapes as above."""
        h = F.silu(self.conv_in(guidance.image))
        for layer in self.blocks:
            h = F.silu(layer(h))
        return (self.conv_out(h),), ()
