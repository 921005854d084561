"""The full-size networks as ONNX files, checked against their modules, and as engines."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.audio.speech_encoder import WIDTH
from engine.backends import GraphSpec
from engine.config import EngineConfig
from engine.nets.portraittalk import PortraitTalkModel
from engine.nets.precision import keep_narrow
from engine.profiles.engines import model_digest
from engine.profiles.sd15 import load_parts
from engine.render.sd15_graphs import NetworkGraph, other_graphs, step_graph
from exports.engines import Made, Plan, Say, keep_engine
from exports.onnx import check, write

TOLERANCE = {"f32": 1e-3, "f16": 2e-2}  # largest difference of an exported graph from its module


def make_sd15(config: EngineConfig, plan: Plan, say: Say) -> Iterator[Made]:
    """Make the graphs of the full-size system, one after another; the heaviest comes last.

    Raises:
        ExportMismatch: a graph computes something else than its module.
        WeightsError, BackendUnavailable, ConfigError: as the loaders and `build_engine` do.
    """
    say("loading the networks", 0, 1)
    dtype = torch.float16 if plan.precision == "f16" else torch.float32
    model = load_parts(config, WIDTH, dtype).model
    model = model.to(dtype).eval().requires_grad_(False)
    say("loading the networks", 1, 1)
    digest = model_digest(config, plan.precision)
    graphs = [*other_graphs(model), step_graph(model)]
    with tempfile.TemporaryDirectory(prefix="portraittalk-onnx-") as passing:
        exported = _exported(graphs, model, plan, say, Path(passing))
        del graphs, model  # the builder needs the memory
        for spec, path, done in exported:
            size, seconds = keep_engine(spec, path, digest, plan, say)
            yield replace(done, engine=size, build_s=seconds)


def _exported(
    graphs: list[NetworkGraph], model: PortraitTalkModel, plan: Plan, say: Say, passing: Path
) -> list[tuple[GraphSpec, Path, Made]]:
    """Each graph's spec, file and figures: first all files are written, then all are checked.

    Half precision is checked against products in fp32 with the same weights, which change the model.
    """
    made, precise = [], []
    for graph in graphs:
        name = graph.spec.name
        say(f"{name}: to ONNX", 0, 1)
        path = (plan.onnx or passing) / name / f"{name}.onnx"
        if path.parent.exists():
            shutil.rmtree(path.parent)
        began = time.perf_counter()
        write(graph.module, graph.spec, graph.sample, path)
        made.append((path, time.perf_counter() - began))
        say(f"{name}: to ONNX", 1, 1)
    if plan.precision == "f16":
        keep_narrow(model, torch.float16)
    for graph, (path, seconds) in zip(graphs, made, strict=True):
        spec = graph.spec
        say(f"{spec.name}: compared with its module", 0, 1)
        difference = check(
            spec,
            graph.sample,
            _wanted(graph.module, graph.sample),
            path,
            tolerance=1.0 if spec.outputs[0].dtype == "uint8" else TOLERANCE[plan.precision],
            runtime="onnxruntime",
            batches=(1,),
        )
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        done = Made(graph=spec.name, onnx=size, difference=difference, export_s=seconds)
        precise.append((spec, path, done))
        say(f"{spec.name}: compared with its module", 1, 1)
    return precise


@torch.no_grad()
def _wanted(module: nn.Module, sample: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What the module makes of the sample, in fp32."""
    wide = (x.float() if x.dtype == torch.float16 else x for x in sample.values())
    out = module(*wide)
    return out if isinstance(out, tuple) else (out,)
