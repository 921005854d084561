"""Reads the public Moonshine encoder's weights out of its quantized ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from engine.errors import DataError
from engine.nets.moonshine import StreamingMoonshine
from engine.nets.speech_stem import SpeechSettings

_LINEARS = {"q": "self_attn/q_proj", "k": "self_attn/k_proj", "v": "self_attn/v_proj"}
_LINEARS |= {"out": "self_attn/dense", "fc1": "mlp/fc1", "fc2": "mlp/fc2"}
_NORMS = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"}


def load_moonshine(path: Path) -> StreamingMoonshine:
    """The streaming encoder with the weights of Moonshine tiny.

    Args:
        path: `encoder_model.onnx`, its matrices stored as one byte a number with one scale each.

    Raises:
        DataError: the file is not that encoder.
    """
    model = StreamingMoonshine(SpeechSettings())
    graph = onnx.load(str(path)).graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    matrix = {n.output[0]: n.input[1] for n in graph.node if n.op_type == "MatMulInteger"}
    try:
        weights = _collect(stored, matrix, model.settings.layers)
        missing, unknown = model.load_state_dict(weights, strict=False)
    except (KeyError, RuntimeError) as error:
        raise DataError(f"{path} is not Moonshine tiny's encoder: {error}") from error
    if set(missing) != {"stem.crest"} or unknown:
        raise DataError(f"{path} is not Moonshine tiny's encoder: {missing} missing")
    return model


def _collect(
    stored: dict[str, NDArray[np.generic]], matrix: dict[str, str], layers: int
) -> dict[str, Tensor]:
    def plain(name: str, scale: str | None = None) -> Tensor:
        values = stored[name].astype(np.float32)
        if scale is not None:
            values = values * stored[f"{scale}_scale"].astype(np.float32)
            values = values + stored[f"{scale}_zero_point"].astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(values))

    def linear(i: int, place: str) -> Tensor:
        name = matrix[f"/layers.{i}/{place}/MatMul_output_0_output_quantized"]
        stem = name.removesuffix("_quantized")
        zero = stored[f"{stem}_zero_point"].astype(np.float32)
        scale = stored[f"{stem}_scale"].astype(np.float32)
        values = (stored[name].astype(np.float32) - zero) * scale
        return torch.from_numpy(np.ascontiguousarray(values.T))

    out = {
        f"stem.conv{i}.weight": plain(f"conv{i}.weight_quantized", f"conv{i}.weight")
        for i in (1, 2, 3)
    }
    out |= {f"stem.conv{i}.bias": plain(f"conv{i}.bias") for i in (2, 3)}
    out |= {"stem.scale": plain("onnx::Mul_1488"), "stem.shift": plain("onnx::Add_1489")}
    for i in range(layers):
        out |= {f"layers.{i}.{k}.weight": linear(i, place) for k, place in _LINEARS.items()}
        out |= {f"layers.{i}.{k}.bias": plain(f"layers.{i}.mlp.{k}.bias") for k in ("fc1", "fc2")}
        out |= {
            f"layers.{i}.{k}.weight": plain(f"layers.{i}.{n}.weight") for k, n in _NORMS.items()
        }
    return out | {"norm.weight": plain("layer_norm.weight")}
