"""Reads the weights of the streaming speech encoder back out of its exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from engine.errors import DataError
from engine.nets.moonshine import StreamingMoonshine
from engine.nets.speech_stem import SpeechSettings

_PREFIX = "model."
_LINEARS = ("q", "k", "v", "out", "fc1", "fc2")


def load_exported(path: Path) -> StreamingMoonshine:
    """The encoder out of `speech.onnx`, ready to be used: training goes on without its checkpoint.

    Raises:
        DataError: the file is not that encoder.
    """
    model = StreamingMoonshine(SpeechSettings())
    try:
        graph = onnx.load(str(path)).graph
        stored = {
            t.name.removesuffix("_half"): torch.from_numpy(
                numpy_helper.to_array(t).astype(np.float32)
            )
            for t in graph.initializer
        }
        named = {k.removeprefix(_PREFIX): v for k, v in stored.items() if k.startswith(_PREFIX)}
        unnamed = _unnamed(graph, stored, model.settings.layers)
        model.load_state_dict(model.state_dict() | named | unnamed)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is not an exported speech encoder: {error}") from error
    return model.eval()


def _unnamed(graph: onnx.GraphProto, stored: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights that the export folded and renamed, found by the node that uses them."""
    used = {node.name: list(node.input) for node in graph.node}
    out = {}
    for i in range(layers):
        for name in _LINEARS:
            place = f"/{name}_{i}/MatMul" if i else f"/{name}/MatMul"
            out[f"layers.{i}.{name}.weight"] = stored[used[place][1]].T.contiguous()
    out["stem.conv3.weight"] = stored[used["/Flatten_1"][0]].permute(2, 1, 0).contiguous()
    return out
