"""Exports the graphs of the tiny renderer (`engine.render.specs.SPECS`) from a trained painter."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.face.topology import POINTS
from engine.nets.painter import Painter
from engine.outputs import own_folder
from engine.render.composite_maps import GRID_X, GRID_Y
from engine.render.holds import whole_picture
from engine.render.specs import SPECS
from exports.geometry import Carry, Composite, Lines, Move, Warp
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
        lines, held = Lines()(source), _held()
        drawn = Warp(painter)(crop, latents, lines, source, target, target + 0.01, *held.values())
        warped, warped_latents, maps, opening, flow = drawn
        guided = Guide(painter)(maps, warped_latents, latents * 0.9, target, torch.zeros(1, 6))
    guidance = {f"guidance{i}": g for i, g in enumerate(guided)}
    reference = {f"reference{i}": k for i, k in enumerate(keys)}
    previous = {f"previous{i}": k * 0.9 for i, k in enumerate(keys)}
    return {
        "enroll": {"crop": crop},
        "lines": {"source": source},
        "warp": {
            "crop": crop,
            "latents": latents,
            "reference_maps": lines,
            "source": source,
            "level": target,
            "target": target + 0.01,
            **held,
        },
        "carry": {
            "patch": torch.rand(1, 4, 128, 128),
            "source": source,
            "before": target,
            "level": target + 0.01,
            "target": target + 0.02,
            **held,
        },
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
        **_composing(flow),
    }


def _held() -> dict[str, Tensor]:
    """What of a portrait stays, as where the background is not told from the person."""
    held = whole_picture()
    return {
        "turn": torch.eye(2)[None],
        "anchors": torch.from_numpy(held.anchors),
        "shares": torch.from_numpy(held.shares),
    }


def _composing(flow: Tensor) -> dict[str, dict[str, Tensor]]:
    """Inputs of the graphs that put a frame together."""
    side = 40
    line = torch.linspace(-1, 1, side)
    return {
        "move": {
            "person": torch.rand(1, 4, 64, 64) * 255,
            "behind": torch.rand(1, 3, side, side) * 255,
            "flow": flow * 0.1,
            "flow_scale": torch.ones(1, 2, 1, 1),
            "nodes": torch.rand(1, 2, len(GRID_Y), len(GRID_X)) * 2 - 1,
            "down": torch.rand(1, side, len(GRID_Y)) / len(GRID_Y),
            "across": torch.rand(1, 2 * len(GRID_X), 2 * side) / (2 * len(GRID_X)),
        },
        "composite": {
            "moved": torch.randint(0, 255, (1, side, side, 3), dtype=torch.uint8),
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
        "lines": (Lines(), 1e-3),
        "warp": (Warp(painter), 1e-3),
        "carry": (Carry(painter), 1e-3),
        "guide": (Guide(painter), 1e-3),
        "denoise": (Denoise(painter), 2e-3),
        "decode": (Decode(painter), 2e-3),
        "move": (Move(), 0.1),  # of 255
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
