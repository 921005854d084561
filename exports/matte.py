"""The public segmenter that tells people from what is behind them -> ONNX: `python -m exports.matte --help`.

MediaPipe's selfie segmenter (Apache-2.0) is a TensorFlow Lite file with one operator of its own, so no
run time but MediaPipe's reads it; its 110 convolution weights and biases are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import Tensor, nn

from engine.errors import DataError
from engine.face.matte import MATTE, MATTE_SIDE
from engine.loaders.packages import fetch
from engine.outputs import own_folder
from exports.onnx import export

_SINGLE: dict[str, Callable[[Tensor], Tensor]] = {
    "RELU": F.relu,
    "HARD_SWISH": F.hardswish,
    "LOGISTIC": torch.sigmoid,
}


@dataclass(frozen=True, slots=True)
class _Step:
    """One operator: what it does, which tensors it reads and makes, and how far it strides."""

    name: str
    inputs: tuple[int, ...]
    output: int
    stride: int = 1


class Segmenter(nn.Module):
    """The network of a TensorFlow Lite file of MobileNet-like operators.

    In: uint8 (N, 256, 256, 3). Out: how much of each pixel is a person (N, 1, 256, 256), in [0, 1].

    Raises:
        DataError: called, and the file holds an operator that is not known here.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import tflite

        model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
        graph = model.Subgraphs(0)
        self._input, self._output = int(graph.Inputs(0)), int(graph.Outputs(0))
        self._steps: list[_Step] = []
        for name, operator in _operators(tflite, model):
            inputs = tuple(int(i) for i in operator.InputsAsNumpy())
            made = int(operator.Outputs(0))
            if name == "DEQUANTIZE":
                self._keep(made, _constant(model, graph.Tensors(inputs[0])))
            else:
                self._steps.append(_Step(name, inputs, made, _stride(tflite, name, operator)))

    def _keep(self, number: int, weight: Tensor) -> None:
        self.register_buffer(f"weight{number}", weight)

    def forward(self, square: Tensor) -> Tensor:
        """Judge `square`; shapes as above."""
        known = {self._input: square.float().permute(0, 3, 1, 2) / 255}
        for step in self._steps:
            read = [known.get(i) for i in step.inputs]
            weights = [getattr(self, f"weight{i}", None) for i in step.inputs]
            known[step.output] = _run(step, read, weights)
        return known[self._output]


def _operators(tflite: Any, model: Any) -> Iterator[tuple[str, Any]]:
    names = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
    graph = model.Subgraphs(0)
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        own = code.CustomCode()
        yield (own.decode() if own else names[code.BuiltinCode()]), operator


def _constant(model: Any, tensor: Any) -> Tensor:
    """A stored tensor in half precision; kernels (O, H, W, I) as torch has them, (O, I, H, W)."""
    values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.float16)
    weight = torch.from_numpy(values.astype(np.float32).reshape(tensor.ShapeAsNumpy()))
    return weight.permute(0, 3, 1, 2).contiguous() if weight.ndim == 4 else weight


def _stride(tflite: Any, name: str, operator: Any) -> int:
    kinds = {"CONV_2D": tflite.Conv2DOptions, "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions}
    if name not in kinds:
        return 1
    options, table = kinds[name](), operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return int(options.StrideH())


def _run(step: _Step, read: list[Tensor | None], weights: list[Tensor | None]) -> Tensor:
    first = read[0]
    assert first is not None
    if step.name in _SINGLE:
        return _SINGLE[step.name](first)
    if step.name in ("ADD", "MUL"):
        assert read[1] is not None
        return first + read[1] if step.name == "ADD" else first * read[1]
    if step.name == "AVERAGE_POOL_2D":  # all of them are over the whole picture
        return first.mean((2, 3), keepdim=True)
    if step.name == "RESIZE_BILINEAR":
        return F.interpolate(first, scale_factor=2, mode="bilinear", align_corners=False)
    if step.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "Convolution2DTransposeBias"):
        raise DataError(f"the segmenter holds an operator that is not known here: {step.name}")
    kernel, bias = weights[1:]
    assert kernel is not None
    if step.name == "Convolution2DTransposeBias":
        return F.conv_transpose2d(first, kernel.transpose(0, 1), bias, stride=2)
    padded, groups = _padded(first, kernel, step), 1
    if step.name == "DEPTHWISE_CONV_2D":
        kernel, groups = kernel.transpose(0, 1), first.shape[1]
    return F.conv2d(padded, kernel, bias, step.stride, groups=groups)


def _padded(picture: Tensor, kernel: Tensor, step: _Step) -> Tensor:
    """As "SAME" pads even sides: what does not divide goes to the right and below."""
    whole = kernel.shape[-1] - step.stride
    low = max(whole, 0) // 2
    high = max(whole, 0) - low
    return F.pad(picture, (low, high, low, high))


def export_matte(file: Path, out: Path) -> float:
    """Write `out`/matte.onnx from the public `file`; returns the largest error."""
    picture = Image.open(Path(__file__).parents[1] / "server" / "data" / "astronaut.png")
    square = np.array(picture.convert("RGB").resize((MATTE_SIDE, MATTE_SIDE)))[None]
    return export(Segmenter(file), MATTE, {"square": torch.from_numpy(square)}, out / "matte.onnx")


def main(
    out: Annotated[Path, typer.Option(help="folder for the ONNX file")],
    cache: Annotated[Path, typer.Option(help="folder for downloads")] = Path("data/packages"),
) -> None:
    """Fetch the segmenter, convert it and check the graph against its module."""
    own_folder(out, earlier=(out / "basis.npz").exists())
    [file] = fetch("selfie-segmenter", cache)
    typer.echo(f"matte.onnx: largest error {export_matte(file, out):.1e}")


if __name__ == "__main__":
    typer.run(main)
