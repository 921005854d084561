"""Writes the graphs `speech` and `motion`: `python -m exports.speech --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import onnx
import torch
import typer
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from engine.audio.speech_encoder import SPEECH
from engine.backends import GraphSpec
from engine.motion.channels import spread_matrix
from engine.motion.decoder import MOTION
from engine.nets.moonshine import SpeechGraph, StreamingMoonshine
from engine.nets.motion_vae import MotionGraph, MotionVae
from engine.outputs import own_folder
from engine.training.motion.examples import load_speech_encoder
from engine.training.motion.train import load_motion
from exports.onnx import export

_SMALL = 1024  # numbers; smaller constants stay in single precision


def export_speech(model: StreamingMoonshine, path: Path) -> float:
    """Write the speech encoder; returns the largest error against the module."""
    return _export(SpeechGraph(model), SPEECH, path)


def export_motion(model: MotionVae, path: Path) -> float:
    """Write the motion net; returns the largest error against the module."""
    return _export(MotionGraph(model, spread_matrix()), MOTION, path)


def _export(module: nn.Module, spec: GraphSpec, path: Path) -> float:
    for weight in module.parameters():
        weight.data = weight.data.half().float()
    torch.manual_seed(0)
    sample = {t.name: 0.3 * torch.randn(t.sized(1)) for t in spec.inputs}
    error = export(module, spec, sample, path, tolerance=2e-3)
    halve(path)
    return error


def halve(path: Path) -> None:
    """Store the large weights of the ONNX file at `path` in half precision; it computes in single.

    Weights that half precision cannot hold exactly (the spectrum's tables) stay as they are.
    """
    model = onnx.load(str(path))
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        half = values.astype("float16")
        if values.size < _SMALL or (half.astype("float32") != values).any():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def main(
    out: Annotated[Path, typer.Option(help="folder for the ONNX files")],
    speech: Annotated[Path | None, typer.Option(help="checkpoint speech.pt")] = None,
    motion: Annotated[Path | None, typer.Option(help="checkpoint motion.pt")] = None,
) -> None:
    """Export what is named and check each graph against its module."""
    own_folder(out, earlier=(out / "basis.npz").exists())
    if speech is not None:
        error = export_speech(load_speech_encoder(speech), out / "speech.onnx")
        typer.echo(f"speech.onnx: largest error {error:.1e}")
    if motion is not None:
        error = export_motion(load_motion(motion), out / "motion.onnx")
        typer.echo(f"motion.onnx: largest error {error:.1e}")


if __name__ == "__main__":
    typer.run(main)
