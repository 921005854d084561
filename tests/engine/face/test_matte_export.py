"""The public segmenter's file is read operator by operator: equal to what numpy makes of a small file of its kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import DataError

pytestmark = pytest.mark.train
RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((4, 3, 3, 3)).astype(np.float16)  # out, rows, columns, in
BIAS = RNG.standard_normal(4).astype(np.float16)
GROW = RNG.standard_normal((1, 2, 2, 4)).astype(np.float16)
GROW_BIAS = np.array([0.25], np.float16)
CONSTANTS = (KERNEL, BIAS, GROW, GROW_BIAS)


def small_file(path: Path, activation: str = "RELU") -> Path:
    """A TensorFlow Lite file: convolution with stride 2, activation, the segmenter's own way to grow, sigmoid."""
    import flatbuffers
    import tflite

    b = flatbuffers.Builder(0)

    def vector(items: list[int]) -> int:
        b.StartVector(4, len(items), 4)
        for item in reversed(items):
            b.PrependUOffsetTRelative(item)
        return int(b.EndVector())

    def numbers(values: Any) -> int:
        return int(b.CreateNumpyVector(np.asarray(values, np.int32)))

    def tensor(shape: tuple[int, ...], buffer: int, kind: int) -> int:
        dimensions = numbers(shape)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, dimensions)
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddType(b, kind)
        return int(tflite.TensorEnd(b))

    def operator(code: int, inputs: list[int], output: int, options: int = 0) -> int:
        read, made = numbers(inputs), numbers([output])
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, code)
        tflite.OperatorAddInputs(b, read)
        tflite.OperatorAddOutputs(b, made)
        if options:
            tflite.OperatorAddBuiltinOptionsType(b, tflite.BuiltinOptions.Conv2DOptions)
            tflite.OperatorAddBuiltinOptions(b, options)
        return int(tflite.OperatorEnd(b))

    data = [int(b.CreateNumpyVector(c.reshape(-1).view(np.uint8))) for c in CONSTANTS]
    buffers = []
    for content in (None, *data):
        tflite.BufferStart(b)
        if content is not None:
            tflite.BufferAddData(b, content)
        buffers.append(int(tflite.BufferEnd(b)))
    half, full = tflite.TensorType.FLOAT16, tflite.TensorType.FLOAT32
    shapes = [(1, 8, 8, 3), (1, 4, 4, 4), (1, 4, 4, 4), (1, 8, 8, 1), (1, 8, 8, 1)]
    tensors = [tensor(shape, 0, full) for shape in shapes]  # 0 to 4: what flows
    tensors += [tensor(c.shape, i + 1, half) for i, c in enumerate(CONSTANTS)]  # 5 to 8
    tensors += [tensor(c.shape, 0, full) for c in CONSTANTS]  # 9 to 12, dequantized
    tflite.Conv2DOptionsStart(b)
    tflite.Conv2DOptionsAddStrideH(b, 2)
    tflite.Conv2DOptionsAddStrideW(b, 2)
    options = int(tflite.Conv2DOptionsEnd(b))
    operators = [operator(0, [5 + i], 9 + i) for i in range(4)]
    operators += [
        operator(1, [0, 9, 10], 1, options),
        operator(2, [1], 2),
        operator(3, [2, 11, 12], 3),
        operator(4, [3], 4),
    ]
    codes = []
    for name in ("DEQUANTIZE", "CONV_2D", activation, "Convolution2DTransposeBias", "LOGISTIC"):
        own = b.CreateString(name) if name[1].islower() else 0
        tflite.OperatorCodeStart(b)
        if own:
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, tflite.BuiltinOperator.CUSTOM)
            tflite.OperatorCodeAddCustomCode(b, own)
        else:
            known = getattr(tflite.BuiltinOperator, name)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, known)
        codes.append(int(tflite.OperatorCodeEnd(b)))
    parts = vector(tensors), numbers([0]), numbers([4]), vector(operators)
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, parts[0])
    tflite.SubGraphAddInputs(b, parts[1])
    tflite.SubGraphAddOutputs(b, parts[2])
    tflite.SubGraphAddOperators(b, parts[3])
    graphs = vector([int(tflite.SubGraphEnd(b))])
    coded, stored = vector(codes), vector(buffers)
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, coded)
    tflite.ModelAddSubgraphs(b, graphs)
    tflite.ModelAddBuffers(b, stored)
    b.Finish(tflite.ModelEnd(b), b"TFL3")
    path.write_bytes(bytes(b.Output()))
    return path


def wanted(square: np.ndarray) -> np.ndarray:
    """What the small file makes of (8, 8, 3) uint8, pixel by pixel: (8, 8)."""
    picture = np.pad(square / 255, ((0, 1), (0, 1), (0, 0)))  # "SAME": what is odd goes to the end
    out = np.zeros((8, 8))
    for y in range(4):
        for x in range(4):
            part = picture[2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            made = np.maximum((KERNEL.astype(float) * part).sum((1, 2, 3)) + BIAS.astype(float), 0)
            grown = (GROW[0].astype(float) * made).sum(-1) + float(GROW_BIAS[0])
            out[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = grown
    return 1 / (1 + np.exp(-out))


def test_a_file_computes_what_its_operators_say(tmp_path: Path) -> None:
    import torch

    from exports.matte import Segmenter

    square = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    net = Segmenter(small_file(tmp_path / "small.tflite"))
    with torch.no_grad():
        made = net(torch.from_numpy(square[None]))[0, 0].numpy()
    np.testing.assert_allclose(made, wanted(square), atol=1e-5)


def test_an_operator_that_is_not_known_is_named(tmp_path: Path) -> None:
    import torch

    from exports.matte import Segmenter

    net = Segmenter(small_file(tmp_path / "other.tflite", "TANH"))
    with pytest.raises(DataError, match="TANH"):
        net(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
