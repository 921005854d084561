"""Run times for the exported graphs, imported only when asked for."""

from __future__ import annotations

import importlib

from engine.backends.base import Backend, Graph, GraphSpec, TensorSpec
from engine.errors import BackendUnavailable

__all__ = ["Backend", "Graph", "GraphSpec", "TensorSpec", "load_backend"]

_CREATORS = {
    "openvino": ("engine.backends.openvino", "portraittalk"),
    "onnxruntime": ("engine.backends.onnxruntime", "portraittalk[ort]"),
}


def load_backend(name: str, *, threads: int) -> Backend:
    """Return the run time called `name`.

    Raises:
        BackendUnavailable: the name is unknown or its package is not installed.
    """
    if name not in _CREATORS:
        raise BackendUnavailable(f"no run time {name!r}; known: {', '.join(sorted(_CREATORS))}")
    module, requirement = _CREATORS[name]
    try:
        creator = importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(f"{name} is not installed: pip install '{requirement}'") from error
    backend: Backend = creator.create(threads=threads)
    return backend
