"""The graphs of the tiny renderer that have no weights: lines, flow, warp, and the frame put together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.face.topology import HEAD_MIDPOINTS, HEAD_POINTS
from engine.nets.geometry import (
    control_points,
    flow_at,
    line_maps,
    neck_points,
    scalp_points,
    unit_line,
    warp,
)
from engine.nets.painter import Painter
from engine.render.composite_maps import CROP_SIDE, FEATHER, GRID_X, GRID_Y
from engine.render.specs import LATENT


class Lines(nn.Module):
    """The line maps of a portrait, which are the same in all its frames; no weights."""

    def forward(self, source: Tensor) -> Tensor:
        """Landmarks (B, 478, 2) in crop units -> maps (B, 6, 32, 32)."""
        return line_maps(source, LATENT)


class Warp(nn.Module):
    """Geometry of the crop, and the flow of the whole portrait on a coarse grid."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.painter = painter
        self.x: Tensor
        self.y: Tensor
        self.register_buffer("x", torch.from_numpy(GRID_X))
        self.register_buffer("y", torch.from_numpy(GRID_Y))

    def forward(
        self,
        crop: Tensor,
        latents: Tensor,
        lines: Tensor,
        source: Tensor,
        level: Tensor,
        target: Tensor,
        *held: Tensor,
    ) -> tuple[Tensor, ...]:
        """Crop, latents (B, 16, 32, 32), `Lines` and landmarks (B, 478, 2) of portrait and frame.

        `level`: those of the frame where the head lies as in the portrait, which the crop is painted for.

        Returns:
            warped crop and latents, maps (B, 13, 32, 32), opening (B, 1, 64, 64), `flow`.
        """
        drawn = self.painter.geometry(crop, latents, source, level, lines)
        return *drawn, self.flow(source, target, *held)

    def flow(
        self, source: Tensor, target: Tensor, turn: Tensor, anchors: Tensor, shares: Tensor
    ) -> Tensor:
        """Flow (B, 2, GRID_Y, GRID_X) of head and neck, level with the portrait's rows.

        Landmarks (B, 478, 2) are in crop units, which `turn` (B, 2, 2) turns about the crop's centre. `anchors`
        (B, 96, 2) and `shares` (B, 45) are those of `engine.render.holds`.
        """
        source, target = ((face - 0.5) @ turn.transpose(1, 2) + 0.5 for face in (source, target))
        necks, scalps = neck_points(source, target, shares), scalp_points(source, target)
        before, after = (
            torch.cat([control_points(face, HEAD_POINTS, HEAD_MIDPOINTS), neck, scalp, anchors], 1)
            for face, neck, scalp in zip((source, target), necks, scalps, strict=True)
        )
        return flow_at(self.x, self.y, before, after)


class Carry(nn.Module):
    """A painted crop moved from the landmarks it was painted for to those of the frame."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.warp = Warp(painter)

    def forward(
        self,
        patch: Tensor,
        source: Tensor,
        before: Tensor,
        level: Tensor,
        target: Tensor,
        *held: Tensor,
    ) -> tuple[Tensor, ...]:
        """Patch (B, 4, 128, 128) and four landmarks (B, 478, 2) -> the patch moved, `Warp.flow`."""
        line = unit_line(self.warp.painter.geometry.grid)
        crop_flow = flow_at(line, line, control_points(before), control_points(level))
        return warp(patch, crop_flow), self.warp.flow(source, target, *held)


class Move(nn.Module):
    """The person moved by the flow, over what lies behind; no weights.

    A grid line has one place on its axis, so the flow between the nodes is two products of matrices:
    pixels by rows, and columns by pixels with x and y in turns.
    """

    def forward(
        self,
        person: Tensor,
        behind: Tensor,
        flow: Tensor,
        flow_scale: Tensor,
        nodes: Tensor,
        down: Tensor,
        across: Tensor,
    ) -> Tensor:
        """Person (B, 4, H, W), nodes (B, 2, a, b) in [-1, 1] -> colours (B, 3, h, w).

        `person` and `behind` (B, 3, h, w) are those of `engine.render.lifting`; `down` (B, h, a) and
        `across` (B, 2 b, 2 w) those of `engine.render.composite_maps`.
        """
        places = (nodes + flow_scale * flow).permute(0, 2, 3, 1).flatten(2)
        where = (down @ places @ across).unflatten(2, (-1, 2))
        moved = F.grid_sample(person, where, align_corners=False, padding_mode="border")
        return (moved[:, :3] + (1 - moved[:, 3:]) * behind).clamp(0, 255)


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
        under = moved.float().permute(
            0, 3, 1, 2
        )  # in this order: TensorRT casts bytes, and no more
        return _to_bytes((1 - laid[:, 3:]) * under + laid[:, :3])


def _to_bytes(rgb: Tensor) -> Tensor:
    """(B, 3, h, w) in [0, 255] -> (B, h, w, 3) uint8."""
    return (rgb.permute(0, 2, 3, 1).clamp(0, 255) + 0.5).to(torch.uint8)
