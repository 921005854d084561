"""The bundled networks, compiled once for all engines of the tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from engine.backends import Graph, GraphSpec, load_backend


class SharedGraphs:
    """A backend on one thread, as `load_backend("openvino", threads=1)` makes it."""

    put = staticmethod(np.asarray)

    def __init__(self, *, fast: bool = False) -> None:
        self.fast = fast

    def load(self, spec: GraphSpec, path: Path) -> Graph:
        return compiled(spec, path)


@cache
def compiled(spec: GraphSpec, path: Path) -> Graph:
    return load_backend("openvino", threads=1).load(spec, path)
