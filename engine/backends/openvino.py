"""OpenVINO: the default run time on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openvino as ov

from engine.backends.base import Array, GraphSpec
from engine.errors import WeightsError


class OpenVinoGraph:
    """One compiled model with one request; not for two threads at once."""

    def __init__(self, spec: GraphSpec, model: ov.CompiledModel) -> None:
        self.spec = spec
        self._request = model.create_infer_request()

    def __call__(self, **feeds: Array) -> dict[str, Array]:
        """Run once; outputs are fresh arrays that the caller owns."""
        self.spec.check(feeds)
        out = self._request.infer(feeds, share_inputs=True, share_outputs=True)
        return {t.name: np.array(out[t.name]) for t in self.spec.outputs}


class OpenVinoBackend:
    """Compiles ONNX files for this CPU: bf16 where it has it and the spec allows, else fp32/int8."""

    def __init__(self, threads: int) -> None:
        self._core = ov.Core()
        self._threads = threads
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
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": "f32" if spec.precision == "f32" else self._any,
        }
        return OpenVinoGraph(spec, self._core.compile_model(model, "CPU", config))


def create(*, threads: int) -> OpenVinoBackend:
    """Make the backend with `threads` CPU threads a graph."""
    return OpenVinoBackend(threads)
