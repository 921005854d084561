"""Checkpoints of the face detector, the landmark net and the lip net -> ONNX: `python -m exports.face --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from engine.face.detector import CROP, DETECTOR, DETECTOR_SIDE, LANDMARKS
from engine.face.lips import LIP_CROP, LIPS
from engine.nets.face import DetectorNet, LandmarkNet, LipNet, MirroredLandmarkNet
from engine.outputs import own_folder
from engine.training.face.train import trained
from exports.onnx import export


def export_detector(run: Path, out: Path) -> float:
    """Write `out`/detector.onnx from checkpoint folder `run`; returns the largest error."""
    sample = {"picture": _noise(DETECTOR_SIDE)}
    return export(trained(DetectorNet(), run), DETECTOR, sample, out / "detector.onnx")


def export_landmarks(run: Path, out: Path) -> float:
    """Write `out`/landmarks.onnx from checkpoint folder `run`; returns the largest error."""
    net = trained(LandmarkNet(), run)
    assert isinstance(net, LandmarkNet)
    sample = {"crop": _noise(CROP)}
    return export(MirroredLandmarkNet(net), LANDMARKS, sample, out / "landmarks.onnx")


def export_lips(run: Path, out: Path) -> float:
    """Write `out`/lips.onnx from checkpoint folder `run`; returns the largest error."""
    return export(trained(LipNet(), run), LIPS, {"crop": _noise(LIP_CROP)}, out / "lips.onnx")


def _noise(side: int) -> torch.Tensor:
    picture = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    return torch.from_numpy(picture)


def main(
    out: Annotated[Path, typer.Option(help="folder for the ONNX files")],
    detector: Annotated[Path | None, typer.Option(help="run folder of the face detector")] = None,
    landmarks: Annotated[Path | None, typer.Option(help="run folder of the landmark net")] = None,
    lips: Annotated[Path | None, typer.Option(help="run folder of the lip net")] = None,
) -> None:
    """Export what is named and check each graph against its module."""
    own_folder(out, earlier=(out / "basis.npz").exists())
    if detector is not None:
        typer.echo(f"detector.onnx: largest error {export_detector(detector, out):.1e}")
    if landmarks is not None:
        typer.echo(f"landmarks.onnx: largest error {export_landmarks(landmarks, out):.1e}")
    if lips is not None:
        typer.echo(f"lips.onnx: largest error {export_lips(lips, out):.1e}")


if __name__ == "__main__":
    typer.run(main)
