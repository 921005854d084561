"""ONNX Runtime: the portable second run time."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
)

from engine.backends.base import Array, GraphSpec
from engine.errors import WeightsError


class OnnxRuntimeGraph:
    """One inference session."""

    def __init__(self, spec: GraphSpec, session: ort.InferenceSession) -> None:
        self.spec = spec
        self._session = session
        self._names = [t.name for t in spec.outputs]

    def __call__(self, **feeds: Array) -> dict[str, Array]:
        """Run once; outputs are fresh arrays that the caller owns."""
        self.spec.check(feeds)
        return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))


class OnnxRuntimeBackend:
    """Runs the same ONNX files with the CPU provider."""

    bf16 = False

    def __init__(self, threads: int) -> None:
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.log_severity_level = 3

    def load(self, spec: GraphSpec, path: Path) -> OnnxRuntimeGraph:
        """Load `path`.

        Raises:
            WeightsError: the file is missing, damaged, or its tensors are not those of `spec`.
        """
        if not path.exists():
            raise WeightsError(f"{spec.name}: no file {path}; reinstall, or name a weights folder")
        try:
            session = ort.InferenceSession(path, self._options, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
            raise WeightsError(f"{spec.name}: {path} is not a readable ONNX file") from error
        have = {t.name for t in (*session.get_inputs(), *session.get_outputs())}
        missing = [t.name for t in (*spec.inputs, *spec.outputs) if t.name not in have]
        if missing:
            raise WeightsError(f"{spec.name}: {path.name} lacks the tensors {missing}")
        return OnnxRuntimeGraph(spec, session)


def create(*, threads: int) -> OnnxRuntimeBackend:
    """Make the backend with `threads` CPU threads a graph."""
    return OnnxRuntimeBackend(threads)
