"""The public HuBERT -> ONNX, for the window of one hop: `python -m exports.hubert --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from engine.audio.hubert import HubertWindow, hubert_spec, window_of
from engine.config import MODELS_DIR, EngineConfig
from engine.loaders.hubert_motion import exported_hubert, hubert_module
from engine.nets.hubert_graph import HubertGraph
from exports.onnx import export


def export_hubert(module: HubertGraph, window: HubertWindow, path: Path) -> float:
    """Write `path`; returns the largest error."""
    sample = torch.randn(1, window.samples, generator=torch.Generator().manual_seed(0))
    spec = hubert_spec(window, module.width)
    return export(module, spec, {"window": 0.1 * sample}, path, tolerance=2e-3)


def main(
    speech: Annotated[str, typer.Option(help="hubert-base or hubert-large.")] = "hubert-base",
    models_dir: Annotated[Path, typer.Option(help="Your folder of checkpoints.")] = MODELS_DIR,
    speech_hop: Annotated[
        int, typer.Option(help="ms after which it hears again, as it is to be served.")
    ] = EngineConfig().speech_hop_ms,
) -> None:
    """Write the graph into the folder of the motion network, where the engine looks for it."""
    window = window_of(EngineConfig(speech_hop_ms=speech_hop).speech_hop_ms)
    path = exported_hubert(speech, speech_hop, models_dir)
    error = export_hubert(hubert_module(speech, window, models_dir), window, path)
    typer.echo(f"{path}: largest error {error:.1e}")


if __name__ == "__main__":
    typer.run(main)
