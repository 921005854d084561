"""Exports the picture graphs `enroll`, `warp`, `paint` and `compose` from a trained painter."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.nets.geometry import blink_field, control_points, flow_at
from engine.nets.painter import Cache, Condition, Painter, Reference
from engine.picture import ANCHORS, COMPOSE, ENROLL, EYES_X, EYES_Y, GRID_X, GRID_Y, PAINT, WARP
from engine.topology import POINTS
from exports.onnx import export


class Enroll(nn.Module):
    """Window -> what every frame needs of it."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.painter = painter

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        """See `engine.picture.ENROLL`."""
        kept = self.painter.enroll(window)
        return kept.latents, kept.identity, *kept.keys


class Warp(nn.Module):
    """Geometry of the window, and the flow of the whole portrait on a coarse grid."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.painter = painter
        self.grid: Tensor
        self.anchors: Tensor
        self.eyes_x: Tensor
        self.eyes_y: Tensor
        y, x = np.meshgrid(GRID_Y, GRID_X, indexing="ij")
        self.register_buffer("grid", torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2)))
        self.register_buffer("anchors", torch.from_numpy(ANCHORS)[None])
        self.register_buffer("eyes_x", torch.from_numpy(EYES_X))
        self.register_buffer("eyes_y", torch.from_numpy(EYES_Y))

    def forward(
        self, window: Tensor, latents: Tensor, source: Tensor, target: Tensor, blink: Tensor
    ) -> tuple[Tensor, ...]:
        """See `engine.picture.WARP`."""
        drawn = self.painter.geometry(window, latents, source, target)
        before = torch.cat([control_points(source), self.anchors], 1)
        after = torch.cat([control_points(target), self.anchors], 1)
        flow = flow_at(self.grid, before, after).transpose(1, 2)
        lids = blink_field(target, blink, self.eyes_x, self.eyes_y)
        return *drawn, flow.view(1, 2, len(GRID_Y), len(GRID_X)), lids


class Paint(nn.Module):
    """One frame of the window in `steps` denoising steps."""

    def __init__(self, painter: Painter, steps: int) -> None:
        super().__init__()
        self.painter, self.steps = painter, steps

    def forward(
        self, noise: Tensor, latents: Tensor, identity: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """See `engine.picture.PAINT`."""
        reference = Reference(latents, rest[:3], identity)
        cache = Cache(rest[3], rest[4:7])
        condition = Condition(*rest[7:13])
        painted, trust, made = self.painter.sample(condition, reference, cache, noise, self.steps)
        patch = torch.cat([painted - trust * condition.warped, trust], 1)
        return patch, made.latents, *made.keys


class Compose(nn.Module):
    """The portrait moved by the flow, the painted window laid in; no weights."""

    def forward(
        self,
        portrait: Tensor,
        flow: Tensor,
        lids: Tensor,
        patch: Tensor,
        flow_map: Tensor,
        lids_map: Tensor,
        base: Tensor,
        patch_map: Tensor,
        scale: Tensor,
        feather: Tensor,
    ) -> Tensor:
        """See `engine.picture.COMPOSE`."""
        offset = F.grid_sample(flow, flow_map, align_corners=False, padding_mode="border")
        lid = F.grid_sample(lids, lids_map, align_corners=False, padding_mode="border")
        offset = offset + torch.cat([torch.zeros_like(lid), lid], 1)
        where = base + torch.einsum("bchw,cd->bhwd", offset, scale)
        moved = F.grid_sample(portrait, where, align_corners=False, padding_mode="border")
        laid = F.grid_sample(patch, patch_map, align_corners=False, padding_mode="border")
        trust = 1 - feather * (1 - laid[:, 3:])
        # the painter works in [-1, 1], the portrait in [0, 255]
        mixed = trust * moved + feather * (laid[:, :3] + 1 - laid[:, 3:]) * 127.5
        return mixed[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)


def samples(painter: Painter) -> dict[str, dict[str, Tensor]]:
    """One plausible input a graph, for tracing and parity."""
    torch.manual_seed(0)
    window = torch.rand(1, 3, 128, 128) * 2 - 1
    source = torch.rand(1, POINTS, 2)
    target = source + 0.02 * torch.randn(1, POINTS, 2)
    with torch.no_grad():
        latents, identity, *keys = Enroll(painter)(window)
        blink = torch.tensor([[0.5, 0.9]])
        drawn = Warp(painter)(window, latents, source, target, blink)
        warped, warped_latents, maps, opening, flow, lids = drawn
    reference = {f"reference{i}": k for i, k in enumerate(keys)}
    previous = {f"previous{i}": k * 0.9 for i, k in enumerate(keys)}
    line = torch.linspace(-1, 1, 40)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)[None]
    return {
        "enroll": {"window": window},
        "warp": {
            **{"window": window, "latents": latents, "source": source, "target": target},
            "blink": blink,
        },
        "paint": {
            **{"noise": painter.noise(1), "latents": latents, "identity": identity, **reference},
            **{"previous_latents": latents * 0.9, **previous},
            **{
                "warped": warped,
                "warped_latents": warped_latents,
                "maps": maps,
                "opening": opening,
            },
            **{"target": target, "placement": torch.zeros(1, 6)},
        },
        "compose": {
            **{"portrait": torch.rand(1, 3, 64, 64) * 255, "flow": flow * 0.1},
            **{"lids": lids, "patch": torch.rand(1, 4, 128, 128)},
            **{"flow_at": grid, "lids_at": grid, "base_at": grid, "patch_at": grid},
            **{"flow_scale": torch.eye(2), "feather": torch.rand(1, 1, 40, 40)},
        },
    }


def export_picture(painter: Painter, out: Path, steps: int = 1) -> dict[str, float]:
    """Write the four graphs and return the parity error of each."""
    feeds = samples(painter)
    modules: dict[str, tuple[nn.Module, float]] = {
        "enroll": (Enroll(painter), 1e-3),
        "warp": (Warp(painter), 1e-3),
        "paint": (Paint(painter, steps), 5e-3),
        "compose": (Compose(), 1.0),  # one grey level of rounding
    }
    specs = {spec.name: spec for spec in (ENROLL, WARP, PAINT, COMPOSE)}
    return {
        name: export(module, specs[name], feeds[name], out / f"{name}.onnx", tolerance=tolerance)
        for name, (module, tolerance) in modules.items()
    }


def load_painter(checkpoint: Path) -> Painter:
    """The averaged weights of a training run."""
    painter = Painter()
    painter.load_state_dict(torch.load(checkpoint, weights_only=True)["ema"])
    return painter.eval()


def main() -> None:
    """Export a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="painter.pt of a training run"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--steps", type=int, default=1, help="denoising steps a frame")
    args = parser.parse_args()
    print(export_picture(load_painter(args.checkpoint), args.out, args.steps))  # noqa: T201


if __name__ == "__main__":
    main()
