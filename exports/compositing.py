"""The two graphs that put a frame together at the portrait's own size; neither has weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.nets.geometry import unit_line
from engine.render.composite_maps import CROP_SIDE, FEATHER


class Move(nn.Module):
    """The head moved by the flow; no weights.

    Flow is known for every second pixel, between four of them: each point makes four, from itself
    (.75) and its neighbours (.25) by row and by column.
    """

    between: Tensor

    def __init__(self) -> None:
        super().__init__()
        near = torch.tensor([[0.25, 0.75, 0], [0, 0.75, 0.25]])
        kernel = torch.einsum("ai,bj,cd->abcdij", near, near, torch.eye(2))  # row, column, x or y
        self.register_buffer("between", kernel.flatten(0, 2))

    def forward(
        self,
        portrait: Tensor,
        flow_scale: Tensor,
        flow: Tensor,
        flow_map: Tensor,
        base: Tensor,
    ) -> Tensor:
        """Portrait (B, 3, H, W) in [0, 255], grids (B, a, b, 2) in [-1, 1] -> (B, h, w, 3) uint8."""
        scaled = torch.einsum("bdc,bchw->bdhw", flow_scale, flow)  # few points: cheap here
        offset = F.grid_sample(scaled, flow_map, align_corners=False, padding_mode="border")
        coarse = base.permute(0, 3, 1, 2) + offset  # for every second pixel, and one step around
        where = F.conv2d(coarse, self.between)  # bilinear, in a third of an Interpolate's time
        where = where.unflatten(1, (2, 2, 2)).permute(0, 4, 1, 5, 2, 3).flatten(1, 2).flatten(2, 3)
        moved = F.grid_sample(portrait, where, align_corners=False, padding_mode="border")
        return (moved + 0.5).to(torch.uint8).permute(0, 2, 3, 1)  # bytes are cheaper to turn


class Composite(nn.Module):
    """The painted crop laid into the moved portrait; no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.feather: Tensor
        line = unit_line(CROP_SIDE)
        edge = (torch.minimum(line, 1 - line) / FEATHER).clamp(0, 1)
        edge = torch.minimum(edge[:, None], edge)
        self.register_buffer("feather", (edge * edge * (3 - 2 * edge))[None, None])

    def forward(self, moved: Tensor, patch: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """Moved (B, h, w, 3), patch (B, 4, 128, 128) -> (B, h, w, 3) uint8.

        Where a pixel lies in the patch, in [-1, 1], is the sum of its row's share `down` (B, h, 2) and
        its column's share `across` (B, w, 2).
        """
        shown = 1 - patch[:, 3:]
        # the painter works in [-1, 1], the portrait in [0, 255]
        paint = self.feather * torch.cat([(patch[:, :3] + shown) * 127.5, shown], 1)
        where = down[:, :, None] + across[:, None]
        laid = F.grid_sample(paint, where, align_corners=False, padding_mode="zeros")
        return _to_bytes((1 - laid[:, 3:]) * moved.permute(0, 3, 1, 2).float() + laid[:, :3])


def _to_bytes(rgb: Tensor) -> Tensor:
    """(B, 3, h, w) in [0, 255] -> (B, h, w, 3) uint8."""
    return (rgb.permute(0, 2, 3, 1).clamp(0, 255) + 0.5).to(torch.uint8)
