"""Run times for the exported graphs, imported only when asked for."""

from __future__ import annotations

import importlib

from engine.backends.base import Backend, Graph, GraphSpec, TensorSpec
from engine.errors import BackendUnavailable
from engine.telemetry import silence

__all__ = ["BACKENDS", "Backend", "Graph", "GraphSpec", "TensorSpec", "load_backend"]

_CREATORS = {  # module, function, what to install
    "openvino": ("engine.backends.openvino", "create", "portraittalk"),
    "onnxruntime": ("engine.backends.onnxruntime", "create", "portraittalk[ort]"),
    "cuda": ("engine.backends.onnxruntime", "create_cuda", "portraittalk[gpu]"),
    "tensorrt": ("engine.backends.onnxruntime", "create_tensorrt", "portraittalk[gpu]"),
}
BACKENDS = tuple(_CREATORS)


def load_backend(name: str, *, threads: int) -> Backend:
    """Return the run time called `name`.

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
    backend: Backend = getattr(creators, function)(threads=threads)
    return backend
