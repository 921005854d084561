"""What a graph looks like from outside, said once: export, run-time check and parity use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# A handle of the backend that made it: a numpy array on a CPU, device memory elsewhere. Callers pass
# handles from graph to graph and never look inside; `np.asarray` brings one to the host.
Tensor = Any
BATCH = "B"  # the free dimension that every tensor of a graph has: one row a stream


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and dtype of one tensor; a string in `shape` is a free dimension."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"

    @property
    def batch_axis(self) -> int:
        """Where in the shape the rows of the streams lie."""
        return self.shape.index(BATCH)

    def sized(self, rows: int) -> tuple[int, ...]:
        """The shape for so many rows.

        Raises:
            ValueError: another dimension is free too.
        """
        return tuple(rows if d == BATCH else int(d) for d in self.shape)

    def check(self, value: Array) -> None:
        """Check an array (...,), or a handle with a shape and a dtype, against this spec.

        Raises:
            ValueError: a dimension that is not free differs, or the dtype does.
        """
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
        light: little work a row over large weights, so that rows of several streams run faster
            together on a CPU too (`benchmarks.stages --batch`).
        free: sizes of each free dimension but the batch: name, least, usual, most; where a run time
            compiles for a range.
        small: a run takes a few ms on one thread, where a second one burns a third more processor
            time for next to nothing: OpenVINO gives it one.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str = "any"
    free: tuple[tuple[str, int, int, int], ...] = ()
    light: bool = False
    small: bool = False

    def check(self, feeds: Mapping[str, Tensor]) -> None:
        """Raise ValueError when an input is missing, unknown or has the wrong shape or dtype."""
        want = {tensor.name for tensor in self.inputs}
        if set(feeds) != want:
            raise ValueError(f"{self.name}: wants inputs {sorted(want)}, got {sorted(feeds)}")
        for tensor in self.inputs:
            tensor.check(feeds[tensor.name])

    def batch_of(self, feeds: Mapping[str, Tensor]) -> int:
        """Rows of `feeds`; raises ValueError when the inputs disagree."""
        rows = {feeds[t.name].shape[t.batch_axis] for t in self.inputs}
        if len(rows) != 1:
            raise ValueError(f"{self.name}: the inputs have {sorted(rows)} rows")
        return int(rows.pop())

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Free dimensions in the form `torch.onnx.export` wants."""
        return {
            t.name: {i: d for i, d in enumerate(t.shape) if isinstance(d, str)}
            for t in (*self.inputs, *self.outputs)
        }


class Graph(Protocol):
    """A loaded network."""

    spec: GraphSpec

    def __call__(self, **feeds: Tensor) -> dict[str, Tensor]:
        """Run once, all rows of `feeds` together; outputs are fresh and the caller's own.

        Raises:
            ValueError: an input is missing, unknown or of the wrong shape or dtype.
        """

    def each(self, rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Run for several streams, `rows` holding the feeds of each (batch 1), in as few runs as pay.

        Law:
            An answer does not depend on the other rows: bit for bit on a CPU in fp32.

        Raises:
            ValueError: as `__call__`.
        """


class Backend(Protocol):
    """A run time that loads graphs.

    Attributes:
        fast: painting costs it little: a GPU, or a CPU that multiplies in bf16 where a graph's spec
            allows.
    """

    fast: bool

    def load(self, spec: GraphSpec, path: Path) -> Graph:
        """Load the ONNX file at `path` and check that it has the tensors of `spec`.

        Raises:
            WeightsError: the file is missing, damaged, or its tensors are not those of `spec`.
        """

    def put(self, array: Array) -> Tensor:
        """Bring an array (...,) of any shape to where graphs read it, once for many runs."""


def rounds(counts: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Streams with `counts` pieces of work each: the number of every round and who has work in it."""
    for turn in range(max(counts, default=0)):
        yield turn, [i for i, count in enumerate(counts) if turn < count]


def in_groups(spec: GraphSpec, rows: Sequence[Mapping[str, Tensor]], most: int) -> list[list[int]]:
    """Which of `rows` run together: equal in every free dimension, at most `most`, sizes 2^k.

    Sizes are powers of two, so that a run time that compiles one program a size has few of them.
    """
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for i, feeds in enumerate(rows):
        alike.setdefault(tuple(tuple(feeds[t.name].shape) for t in spec.inputs), []).append(i)
    groups = []
    for members in alike.values():
        begin = 0
        while begin < len(members):
            size = min(most, len(members) - begin)
            size = 1 << (size.bit_length() - 1)
            groups.append(members[begin : begin + size])
            begin += size
    return groups


def stack_rows(spec: GraphSpec, rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays of several streams (1 row each) as one batch."""
    return {
        t.name: np.concatenate([feeds[t.name] for feeds in rows], t.batch_axis) for t in spec.inputs
    }


def split_rows(spec: GraphSpec, out: Mapping[str, Array], count: int) -> list[dict[str, Array]]:
    """A batch of `count` rows as arrays of each stream (1 row each), all of them copies."""
    parts = {t.name: np.split(out[t.name], count, t.batch_axis) for t in spec.outputs}
    return [
        {name: np.ascontiguousarray(part[i]) for name, part in parts.items()} for i in range(count)
    ]
