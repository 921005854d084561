"""Arrays in a device's memory, handed from graph to graph by address.

A batch that a graph made is one piece of memory; a stream's row of it is an address within. Rows that were
made together and are used together, in the same order, are never copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from engine.backends.base import Array

ALIGNED = 256  # bytes, as TensorRT wants its addresses
KEPT = 4  # freed pieces of a size that are kept for the next one who asks


class Memory(Protocol):
    """The memory of a device and the one stream of work on it, done in the order of the calls."""

    stream: int

    def take(self, size: int) -> int:
        """Address of `size` bytes."""

    def give(self, pointer: int) -> None:
        """Free what `take` gave."""

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy within the device."""

    def upload(self, to: int, array: Array) -> None:
        """Copy the array (...,), C-contiguous, to the device."""

    def download(self, array: Array, source: int) -> None:
        """Fill the array (...,), C-contiguous, from the device."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record the work that `run` would start; what starts it again."""


class Block:
    """A piece of memory, given back to its pool when nobody holds it."""

    def __init__(self, pool: Pool, size: int) -> None:
        self.pool, self.size = pool, size
        self.pointer = pool.take(size)

    def __del__(self) -> None:
        self.pool.give(self.pointer, self.size)


class Pool:
    """Memory taken piece by piece; the last one freed of a size is the first one given again.

    So a stream whose frames follow each other comes back to the same few addresses, whose work can be
    recorded. Work on a piece that was freed is over before work on it as another one begins: all of it
    goes through one stream.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._free: dict[int, list[int]] = {}

    def take(self, size: int) -> int:
        """Address of `size` bytes."""
        free = self._free.get(size)
        return free.pop() if free else self.memory.take(size)

    def give(self, pointer: int, size: int) -> None:
        """Take back what `take` gave."""
        free = self._free.setdefault(size, [])
        if len(free) < KEPT:
            free.append(pointer)
        else:
            self.memory.give(pointer)


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A handle: where an array lies on the device, C-contiguous, and what keeps it there."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any
    pool: Pool

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The array on the host, of shape `shape`."""
        array = np.empty(self.shape, self.dtype)
        self.pool.memory.download(array, self.pointer)
        return array if dtype is None else array.astype(dtype, copy=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """As torch and others read it: `torch.as_tensor(handle)` is the same memory."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "version": 3,
        }

    def rows(self, axis: int) -> list[DeviceArray]:
        """Its rows along `axis`, each of one: addresses within, or copies where a row is not in one piece."""
        count, shape = self.shape[axis], (*self.shape[:axis], 1, *self.shape[axis + 1 :])
        step = self.size // count
        if count == 1:
            return [self]
        if axis == 0:
            return [
                replace(self, pointer=self.pointer + i * step, shape=shape) for i in range(count)
            ]
        apart = [new(self.pool, shape, self.dtype) for _ in range(count)]
        for piece, at in _pieces(self, apart, axis):
            self.pool.memory.copy(piece, at, step // math.prod(shape[:axis]))
        return apart


def new(pool: Pool, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    """An array whose numbers are not set."""
    dtype = np.dtype(dtype)
    block = Block(pool, max(1, math.prod(shape)) * dtype.itemsize)
    return DeviceArray(block.pointer, shape, dtype, block, pool)


def together(pool: Pool, shapes: Sequence[tuple[tuple[int, ...], Any]]) -> list[DeviceArray]:
    """Arrays of these shapes and dtypes in one piece of memory."""
    begin, places = 0, []
    for shape, dtype in shapes:
        places.append(begin)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        begin += -(-size // ALIGNED) * ALIGNED
    block = Block(pool, begin)
    return [
        DeviceArray(block.pointer + at, shape, np.dtype(dtype), block, pool)
        for at, (shape, dtype) in zip(places, shapes, strict=True)
    ]


def on_device(pool: Pool, value: Any) -> DeviceArray:
    """`value` (...,) on the device: a handle itself, device memory of torch by its address, else a copy."""
    if isinstance(value, DeviceArray):
        return value
    known = getattr(value, "__cuda_array_interface__", None)
    if known is not None and known.get("strides") is None:
        pointer, _ = known["data"]
        return DeviceArray(pointer, tuple(known["shape"]), np.dtype(known["typestr"]), value, pool)
    array = np.ascontiguousarray(value)
    made = new(pool, array.shape, array.dtype)
    pool.memory.upload(made.pointer, array)
    return made


def gather(pool: Pool, rows: Sequence[DeviceArray], axis: int) -> DeviceArray:
    """One array of all rows (each has one along `axis`).

    Rows that lie one after the other in one piece already are not copied.
    """
    first, count = rows[0], len(rows)
    shape = (*first.shape[:axis], count, *first.shape[axis + 1 :])
    follow = all(
        row.owner is first.owner and row.pointer == first.pointer + i * first.size
        for i, row in enumerate(rows)
    )
    if count == 1 or (axis == 0 and follow):
        return replace(first, shape=shape)
    made = new(pool, shape, first.dtype)
    for piece, at in _pieces(made, rows, axis):
        pool.memory.copy(at, piece, first.size // math.prod(shape[:axis]))
    return made


def _pieces(
    whole: DeviceArray, rows: Sequence[DeviceArray], axis: int
) -> Iterator[tuple[int, int]]:
    """Addresses of the pieces of each row, and of the same ones in the array of all."""
    outer = math.prod(whole.shape[:axis])
    size = rows[0].size // outer
    for i, row in enumerate(rows):
        for piece in range(outer):
            yield row.pointer + piece * size, whole.pointer + (piece * len(rows) + i) * size
