"""Module + GraphSpec -> ONNX file, checked against the module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.backends import GraphSpec, load_backend
from engine.backends.base import split_rows, stack_rows
from engine.errors import ExportMismatch

OPSET = 20


def export(
    module: nn.Module,
    spec: GraphSpec,
    sample: Mapping[str, Tensor],
    path: Path,
    *,
    tolerance: float = 1e-3,
) -> float:
    """Write `module` as ONNX to `path` and return its largest error against the module.

    Args:
        module: called with the tensors of `spec.inputs` in order, returns those of `spec.outputs`.
        sample: one tensor an input, of one row; also the input of the parity check, alone and as three
            rows of one batch.
        tolerance: largest absolute difference allowed, in fp32 on the first-choice run time.

    Raises:
        ExportMismatch: the exported graph computes something else.
        ValueError: an output has another shape or dtype than its spec says.
    """
    wanted = write(module, spec, sample, path)
    return check(spec, sample, wanted, path, tolerance=tolerance)


def write(
    module: nn.Module, spec: GraphSpec, sample: Mapping[str, Tensor], path: Path
) -> tuple[Tensor, ...]:
    """Write `module` as ONNX to `path`; what it makes of `sample`, in the order of `spec.outputs`.

    Tensors (1, ...) are of one row. Weights of more than 2 GB lie in files beside it. Arguments are those of `export`.
    """
    module = module.eval()
    arguments = tuple(sample[t.name] for t in spec.inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = module(*arguments)
        torch.onnx.export(
            module,
            arguments,
            str(path),
            opset_version=OPSET,
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
            dynamic_axes=spec.dynamic_axes(),
            dynamo=False,
        )
    return wanted if isinstance(wanted, tuple) else (wanted,)


def check(
    spec: GraphSpec,
    sample: Mapping[str, Tensor],
    wanted: Sequence[Tensor],
    path: Path,
    *,
    tolerance: float,
    runtime: str = "openvino",
    batches: Sequence[int] = (1, 3),
) -> float:
    """The largest error of the ONNX file at `path` against `wanted`, alone and as rows of a batch.

    Args:
        wanted: what the module makes of `sample`, each (1, ...), in the order of `spec.outputs`.
        runtime: OpenVINO computes whole numbers in 32 bits; the line drawer needs 64.

    Raises:
        ExportMismatch, ValueError: as `export`.
    """
    graph = load_backend(runtime, threads=2).load(replace(spec, precision="f32"), path)
    feeds = {name: tensor.numpy() for name, tensor in sample.items()}
    worst = 0.0
    for rows in batches:
        for got in split_rows(spec, graph(**stack_rows(spec, [feeds] * rows)), rows):
            for tensor, want in zip(spec.outputs, wanted, strict=True):
                tensor.check(got[tensor.name])
                difference = got[tensor.name].astype(np.float64) - want.double().numpy()
                worst = max(worst, float(np.abs(difference).max(initial=0.0)))
    if not worst <= tolerance:
        raise ExportMismatch(f"{spec.name}: largest difference {worst:.2e} is over {tolerance:.0e}")
    return worst
