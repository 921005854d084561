"""Run times for the exported graphs, imported only when asked for."""

from __future__ import annotations

import importlib

from engine.backends.base import BATCH, Backend, Graph, GraphSpec, Tensor, TensorSpec
from engine.errors import BackendUnavailable
from engine.telemetry import silence

__all__ = [
    "BACKENDS",
    "BATCH",
    "Backend",
    "Graph",
    "GraphSpec",
    "Tensor",
    "TensorSpec",
    "load_backend",
]

_CREATORS = {  # module, function, what to install
    "openvino": ("engine.backends.openvino", "create", "portraittalk"),
    "onnxruntime": ("engine.backends.onnxruntime", "create", "portraittalk[ort]"),
    "cuda": ("engine.backends.onnxruntime", "create_cuda", "portraittalk[gpu]"),
    "ort-tensorrt": ("engine.backends.onnxruntime", "create_tensorrt", "portraittalk[gpu]"),
    "tensorrt": ("engine.backends.tensorrt", "create", "portraittalk[rtx]"),
    "tensorrt-rtx": ("engine.backends.tensorrt", "create_rtx", "portraittalk[rtx]"),
}
BACKENDS = tuple(_CREATORS)


def load_backend(name: str, *, threads: int, rows: int = 1, callers: int = 1) -> Backend:
    """Return the run time called `name`.

    Args:
        threads: CPU threads of one graph.
        rows: streams that may be stepped together (`Graph.each`), at most.
        callers: threads that gain by running a graph at the same time; on a CPU any number may.

    Raises:
        BackendUnavailable: the name is unknown, or its package or its device is not here.
    """
    if name not in _CREATORS:
        raise BackendUnavailable(f"no run time {name!r}; known: {', '.join(sorted(_CREATORS))}")
    module, function, requirement = _CREATORS[name]
    silence()
    try:
        creators = importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(f"{name} is not installed: pip install '{requirement}'") from error
    backend: Backend = getattr(creators, function)(threads=threads, rows=rows, callers=callers)
    return backend
