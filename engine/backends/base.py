"""What a graph looks like from outside, said once: export, run-time check and parity use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and dtype of one tensor; a string in `shape` is a free dimension."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"

    def check(self, value: Array) -> None:
        """Raise ValueError when `value` does not fit."""
        fits = len(value.shape) == len(self.shape) and all(
            isinstance(want, str) or want == came
            for want, came in zip(self.shape, value.shape, strict=True)
        )
        if not fits or value.dtype != np.dtype(self.dtype):
            raise ValueError(
                f"{self.name}: wants {self.dtype} {self.shape}, got {value.dtype} {value.shape}"
            )


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """Inputs and outputs of one exported network.

    Args:
        precision: "any" lets the run time choose its fastest arithmetic; "f32" forbids less.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str = "any"

    def check(self, feeds: Mapping[str, Array]) -> None:
        """Raise ValueError when an input is missing, unknown or has the wrong shape or dtype."""
        want = {tensor.name for tensor in self.inputs}
        if set(feeds) != want:
            raise ValueError(f"{self.name}: wants inputs {sorted(want)}, got {sorted(feeds)}")
        for tensor in self.inputs:
            tensor.check(feeds[tensor.name])

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Free dimensions in the form `torch.onnx.export` wants."""
        return {
            t.name: {i: d for i, d in enumerate(t.shape) if isinstance(d, str)}
            for t in (*self.inputs, *self.outputs)
            if any(isinstance(d, str) for d in t.shape)
        }


class Graph(Protocol):
    """A loaded network."""

    spec: GraphSpec

    def __call__(self, **feeds: Array) -> dict[str, Array]:
        """Run once; outputs are fresh arrays that the caller owns."""


class Backend(Protocol):
    """A run time that loads graphs.

    Attributes:
        fast: painting costs it little: a GPU, or a CPU that multiplies in bf16 where a graph's spec
            allows.
    """

    fast: bool

    def load(self, spec: GraphSpec, path: Path) -> Graph:
        """Load the ONNX file at `path` and check that it has the tensors of `spec`."""
