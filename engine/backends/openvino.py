"""OpenVINO: the default run time on a CPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from engine.backends.base import (
    BATCH,
    Array,
    GraphSpec,
    Tensor,
    TensorSpec,
    in_groups,
    split_rows,
    stack_rows,
)
from engine.errors import WeightsError


class _Requests(threading.local):
    """The requests of one thread by their batch size: two threads never run the same one."""

    def __init__(self) -> None:
        self.by_batch: dict[int, ov.InferRequest] = {}


class OpenVinoGraph:
    """One model, compiled once for each batch size that is asked for, for any number of threads.

    Args:
        rows: most streams that run together in `each`.
    """

    def __init__(
        self, spec: GraphSpec, core: ov.Core, model: ov.Model, config: dict[str, Any], rows: int
    ) -> None:
        self.spec = spec
        self._core, self._model, self._config, self._rows = core, model, config, rows
        self._compiled: dict[int, ov.CompiledModel] = {}
        self._own = _Requests()
        size = 1
        while size <= rows:  # compiling takes longer than a frame: not in the middle of a stream
            self._program(size)
            size *= 2

    def __call__(self, **feeds: Tensor) -> dict[str, Tensor]:
        """Run once; outputs are fresh arrays that the caller owns."""
        self.spec.check(feeds)
        request = self._request(self.spec.batch_of(feeds))
        read = [ov.Tensor(_readable(feeds[t.name]), shared_memory=True) for t in self.spec.inputs]
        for t, tensor in zip(self.spec.inputs, read, strict=True):
            request.set_tensor(t.name, tensor)
        # Not `infer`: the calling thread would join the pool of workers and look for work in vain.
        request.start_async()
        request.wait()
        return {t.name: np.array(request.get_tensor(t.name).data) for t in self.spec.outputs}

    def each(self, rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Run for several streams; heavy graphs one after another, which is as fast on a CPU."""
        if len(rows) == 1 or self._rows == 1:
            return [self(**feeds) for feeds in rows]
        done: list[dict[str, Tensor]] = [{}] * len(rows)
        for group in in_groups(self.spec, rows, self._rows):
            out = self(**stack_rows(self.spec, [rows[i] for i in group]))
            for i, row in zip(group, split_rows(self.spec, out, len(group)), strict=True):
                done[i] = row
        return done

    def _request(self, batch: int) -> ov.InferRequest:
        requests = self._own.by_batch
        if batch not in requests:
            requests[batch] = self._program(batch).create_infer_request()
        return requests[batch]

    def _program(self, batch: int) -> ov.CompiledModel:
        if batch not in self._compiled:
            model = self._model.clone()
            model.reshape({t.name: _shape(t, batch) for t in self.spec.inputs})
            self._compiled[batch] = self._core.compile_model(model, "CPU", self._config)
        return self._compiled[batch]


def _readable(array: Array) -> Array:
    """The array (...,) as the run time can share it: in one piece, and not marked as read-only."""
    return np.require(array, requirements=["C", "W"])


def _shape(tensor: TensorSpec, batch: int) -> ov.PartialShape:
    """The shape with its batch fixed, which makes faster programs; other free dimensions stay free."""
    return ov.PartialShape(
        [batch if d == BATCH else -1 if isinstance(d, str) else d for d in tensor.shape]
    )


class OpenVinoBackend:
    """Compiles ONNX files for this CPU: bf16 where it has it and the spec allows, else fp32/int8.

    Args:
        threads: CPU threads of a graph that is not `GraphSpec.small`.
        rows: most streams whose rows run together in graphs that gain by it (`GraphSpec.light`).
        callers: threads that run a graph side by side, each on `threads` of its own; more wait for them.
    """

    def __init__(self, threads: int, rows: int = 1, callers: int = 1) -> None:
        self._core = ov.Core()
        self._threads, self._rows, self._callers = threads, rows, callers
        # Held to fewer instructions (as the CPU of a smaller machine), it still says it has bf16.
        held = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
        able = held in ("DEFAULT", "ALL") or "BF16" in held or "AMX" in held
        known = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.fast = able and "BF16" in known
        self._any = "bf16" if self.fast else "f32"

    def load(self, spec: GraphSpec, path: Path) -> OpenVinoGraph:
        """Load and compile `path`.

        Raises:
            WeightsError: the file is missing, damaged, or its tensors are not those of `spec`.
        """
        if not path.exists():
            raise WeightsError(f"{spec.name}: no file {path}; reinstall, or name a weights folder")
        try:
            model = self._core.read_model(path)
        except RuntimeError as error:
            raise WeightsError(f"{spec.name}: {path} is not a readable ONNX file") from error
        have = {name for port in (*model.inputs, *model.outputs) for name in port.get_names()}
        missing = [t.name for t in (*spec.inputs, *spec.outputs) if t.name not in have]
        if missing:
            raise WeightsError(f"{spec.name}: {path.name} lacks the tensors {missing}")
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, the only thread of each graph would lie on the first CPU, and the others idle.
            "ENABLE_CPU_PINNING": False,
            "NUM_STREAMS": self._callers,
            "INFERENCE_NUM_THREADS": self._callers * (1 if spec.small else self._threads),
            "INFERENCE_PRECISION_HINT": "f32" if spec.precision == "f32" else self._any,
        }
        rows = self._rows if spec.light else 1
        return OpenVinoGraph(spec, self._core, model, config, rows)

    def put(self, array: Array) -> Tensor:
        """The array (...,) itself, as graphs read it."""
        return array


def create(*, threads: int, rows: int, callers: int) -> OpenVinoBackend:
    """Make the backend with `threads` CPU threads a graph, for `rows` streams and `callers` at once."""
    return OpenVinoBackend(threads, rows, callers)
