"""Exports the graphs of the tiny renderer (`engine.render.specs.SPECS`) from a trained painter."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.face.topology import HEAD_MIDPOINTS, HEAD_POINTS, POINTS
from engine.nets.geometry import control_points, flow_at, neck_points, unit_line, warp
from engine.nets.painter import Painter
from engine.outputs import own_folder
from engine.render.composite_maps import ANCHORS, GRID_X, GRID_Y
from engine.render.specs import SPECS
from exports.compositing import Composite, Move
from exports.onnx import export


class Enroll(nn.Module):
    """What is computed once from the crop of a portrait."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.painter = painter

    def forward(self, crop: Tensor) -> tuple[Tensor, ...]:
        """Crop (B, 3, 128, 128) -> latents (B, 16, 32, 32), identity (B, 4, 128), keys (B, n, d).

        The graph is `engine.render.specs.ENROLL`; so the others below, each of its own name.
        """
        kept = self.painter.enroll(crop)
        return kept.latents, kept.identity, *kept.keys


class Warp(nn.Module):
    """Geometry of the crop, and the flow of the whole portrait on a coarse grid."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.painter = painter
        self.x: Tensor
        self.y: Tensor
        self.anchors: Tensor
        self.register_buffer("x", torch.from_numpy(GRID_X))
        self.register_buffer("y", torch.from_numpy(GRID_Y))
        self.register_buffer("anchors", torch.from_numpy(ANCHORS)[None])

    def forward(
        self, crop: Tensor, latents: Tensor, source: Tensor, level: Tensor, target: Tensor
    ) -> tuple[Tensor, ...]:
        """Crop, latents (B, 16, 32, 32) and landmarks (B, 478, 2) of portrait and frame, crop units.

        `level`: those of the frame where the head lies as in the portrait, which the crop is painted for.

        Returns:
            warped crop and latents, maps (B, 13, 32, 32), opening (B, 1, 64, 64), `flow`.
        """
        drawn = self.painter.geometry(crop, latents, source, level)
        return *drawn, self.flow(source, target)

    def flow(self, source: Tensor, target: Tensor) -> Tensor:
        """Flow (B, 2, GRID_Y, GRID_X) of head and neck; landmarks (B, 478, 2) in crop units."""
        necks = neck_points(source, target)
        anchors = self.anchors.expand(source.shape[0], -1, -1)
        before, after = (
            torch.cat([control_points(face, HEAD_POINTS, HEAD_MIDPOINTS), neck, anchors], 1)
            for face, neck in zip((source, target), necks, strict=True)
        )
        return flow_at(self.x, self.y, before, after)


class Carry(nn.Module):
    """A painted crop moved from the landmarks it was painted for to those of the frame."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.warp = Warp(painter)

    def forward(
        self, patch: Tensor, source: Tensor, before: Tensor, level: Tensor, target: Tensor
    ) -> tuple[Tensor, ...]:
        """Patch (B, 4, 128, 128) and four landmarks (B, 478, 2) -> the patch moved, `Warp.flow`."""
        line = unit_line(self.warp.painter.geometry.grid)
        crop_flow = flow_at(line, line, control_points(before), control_points(level))
        return warp(patch, crop_flow), self.warp.flow(source, target)


class Guide(nn.Module):
    """AnimateNet: what guides one frame."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.net = painter.animate_net

    def forward(
        self, maps: Tensor, warped: Tensor, previous: Tensor, target: Tensor, placement: Tensor
    ) -> tuple[Tensor, ...]:
        """Maps, latents, landmarks, placement (B, 6) -> (B, 48, 32, 32), half and a quarter."""
        guidance: tuple[Tensor, ...] = self.net(maps, warped, previous, target, placement)
        return guidance


class Denoise(nn.Module):
    """One evaluation of IdentityNet."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.net = painter.identity_net

    def forward(
        self, z_t: Tensor, t: Tensor, latents: Tensor, identity: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        """z_t (B, 16, 32, 32) at t (B,), rest: keys and guidance -> made latents, keys (B, n, d)."""
        reference, previous, guidance = rest[:3], rest[3:6], rest[6:9]
        made, keys = self.net(z_t, t, latents, guidance, identity, reference, previous)
        return made, *keys


class Decode(nn.Module):
    """Latents to the painted crop and how far the warp is to be trusted."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.decoder = painter.decoder

    def forward(self, made_latents: Tensor, warped: Tensor, opening: Tensor) -> Tensor:
        """Latents (B, 16, 32, 32) -> (B, 4, 128, 128): paint less trust * warp, and trust."""
        painted, trust = self.decoder(made_latents, warped, opening)
        return torch.cat([painted - trust * warped, trust], 1)


def samples(painter: Painter) -> dict[str, dict[str, Tensor]]:
    """One plausible input a graph, for tracing and parity."""
    torch.manual_seed(0)
    crop = torch.rand(1, 3, 128, 128) * 2 - 1
    source = torch.rand(1, POINTS, 2)
    target = source + 0.02 * torch.randn(1, POINTS, 2)
    with torch.no_grad():
        latents, identity, *keys = Enroll(painter)(crop)
        drawn = Warp(painter)(crop, latents, source, target, target + 0.01)
        warped, warped_latents, maps, opening, flow = drawn
        guided = Guide(painter)(maps, warped_latents, latents * 0.9, target, torch.zeros(1, 6))
    points = {"source": source, "level": target, "target": target + 0.01}
    guidance = {f"guidance{i}": g for i, g in enumerate(guided)}
    reference = {f"reference{i}": k for i, k in enumerate(keys)}
    previous = {f"previous{i}": k * 0.9 for i, k in enumerate(keys)}
    line = torch.linspace(-1, 1, 40)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)[None]
    return {
        "enroll": {"crop": crop},
        "warp": {"crop": crop, "latents": latents, **points},
        "carry": {"patch": torch.rand(1, 4, 128, 128), "before": target - 0.01, **points},
        "guide": {
            "maps": maps,
            "warped_latents": warped_latents,
            "previous_latents": latents * 0.9,
            "target": target,
            "placement": torch.zeros(1, 6),
        },
        "denoise": {
            "z_t": painter.noise(1),
            "t": torch.tensor([0.75]),
            "latents": latents,
            "identity": identity,
            **reference,
            **previous,
            **guidance,
        },
        "decode": {"made_latents": latents, "warped": warped, "opening": opening},
        "move": {
            "portrait": torch.rand(1, 3, 64, 64) * 255,
            "flow_scale": torch.eye(2)[None],
            "flow": flow * 0.1,
            "flow_at": grid,
            "base_at": grid,
        },
        "composite": {
            "moved": torch.randint(0, 255, (1, 40, 40, 3), dtype=torch.uint8),
            "patch": torch.rand(1, 4, 128, 128),
            "down": torch.stack([0 * line, line], -1)[None] * 1.1,
            "across": torch.stack([line, 0.1 * line], -1)[None] * 1.1,
        },
    }


def export_picture(painter: Painter, out: Path) -> dict[str, float]:
    """Write the graphs and return the parity error of each."""
    feeds = samples(painter)
    modules: dict[str, tuple[nn.Module, float]] = {
        "enroll": (Enroll(painter), 1e-3),
        "warp": (Warp(painter), 1e-3),
        "carry": (Carry(painter), 1e-3),
        "guide": (Guide(painter), 1e-3),
        "denoise": (Denoise(painter), 2e-3),
        "decode": (Decode(painter), 2e-3),
        "move": (Move(), 1.0),  # one grey level of rounding
        "composite": (Composite(), 1.0),
    }
    errors = {}
    for spec in SPECS:
        module, tolerance = modules[spec.name]
        path = out / f"{spec.name}.onnx"
        errors[spec.name] = export(module, spec, feeds[spec.name], path, tolerance=tolerance)
    return errors


def load_painter(checkpoint: Path) -> Painter:
    """The averaged weights of a training run (`painter.pt`), or those kept as safetensors."""
    painter = Painter()
    if checkpoint.suffix == ".safetensors":
        weights = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
    else:
        weights = torch.load(checkpoint, weights_only=True)["ema"]
    painter.load_state_dict(weights)
    return painter.eval()


def main() -> None:
    """Export a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="painter.pt of a run, or .safetensors"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the ONNX files")
    args = parser.parse_args()
    own_folder(args.out, earlier=(args.out / "painter.safetensors").exists())
    painter = load_painter(args.checkpoint)
    halves = {name: tensor.half().contiguous() for name, tensor in painter.state_dict().items()}
    save_file(halves, args.out / "painter.safetensors")  # what the next training starts from
    print(export_picture(painter, args.out))  # noqa: T201


if __name__ == "__main__":
    main()
