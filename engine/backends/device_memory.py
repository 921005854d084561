"""Tensors that stay in a device's memory between the graphs of ONNX Runtime (IO binding).

Shown equal to plain runs on the CPU's own memory; not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from engine.backends.base import Array, GraphSpec, Tensor, TensorSpec, in_groups


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """One stream's row of a batch in device memory, or the whole of it."""

    batch: ort.OrtValue
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    row: int  # in `batch`
    axis: int

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The row on the host, of shape `shape`."""
        rows = range(self.row, self.row + self.shape[self.axis])
        array: Array = np.take(self.batch.numpy(), rows, self.axis).astype(dtype or self.dtype)
        return array

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its batch."""
        return tuple(self.batch.shape()) == self.shape


class DeviceGraph:
    """One inference session whose tensors stay on its device, bound in place (IO binding).

    Rows that were made together and are used together, in the same order, are never copied; others
    are gathered over the host.

    Args:
        device: where the session runs: "cuda"; "cpu" in tests.
        rows: most streams that run together in `each`.
    """

    def __init__(
        self, spec: GraphSpec, session: ort.InferenceSession, device: str, rows: int
    ) -> None:
        self.spec = spec
        self._session, self._device, self._rows = session, device, rows

    def __call__(self, **feeds: Tensor) -> dict[str, Tensor]:
        """Run once; outputs are handles of device memory."""
        self.spec.check(feeds)
        bound = {t.name: self._gather([feeds[t.name]], t.batch_axis) for t in self.spec.inputs}
        batch = self.spec.batch_of(feeds)
        return self._rows_of(self._run(bound), [range(batch)])[0]

    def each(self, rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Run for several streams, as many together as `rows` of the backend allows."""
        for feeds in rows:
            self.spec.check(feeds)
        done: list[dict[str, Tensor]] = [{}] * len(rows)
        for group in in_groups(self.spec, rows, self._rows):
            bound = {
                t.name: self._gather([rows[i][t.name] for i in group], t.batch_axis)
                for t in self.spec.inputs
            }
            made = self._rows_of(self._run(bound), [range(i, i + 1) for i in range(len(group))])
            for i, row in zip(group, made, strict=True):
                done[i] = row
        return done

    def _run(self, bound: Mapping[str, ort.OrtValue]) -> dict[str, ort.OrtValue]:
        binding = self._session.io_binding()
        for name, value in bound.items():
            binding.bind_ortvalue_input(name, value)
        for tensor in self.spec.outputs:
            binding.bind_output(tensor.name, self._device)
        self._session.run_with_iobinding(binding)
        names = (tensor.name for tensor in self.spec.outputs)
        return dict(zip(names, binding.get_outputs(), strict=True))

    def _gather(self, rows: Sequence[Tensor], axis: int) -> ort.OrtValue:
        """The rows as one batch on the device; handles that already are that batch are not copied."""
        first = rows[0]
        if isinstance(first, DeviceTensor):
            batch = first.batch
            together = all(
                isinstance(r, DeviceTensor) and r.batch is batch and r.row == i
                for i, r in enumerate(rows)
            )
            if together and (first.is_whole or batch.shape()[axis] == len(rows)):
                return batch
        arrays = [np.asarray(r) for r in rows]
        whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(whole), self._device, 0)

    def _rows_of(
        self, made: Mapping[str, ort.OrtValue], rows: Sequence[range]
    ) -> list[dict[str, Tensor]]:
        """Handles of the given rows of each output."""

        def handle(tensor: TensorSpec, batch: ort.OrtValue, at: range) -> DeviceTensor:
            axis, shape = tensor.batch_axis, list(batch.shape())
            shape[axis] = len(at)
            return DeviceTensor(batch, tuple(shape), np.dtype(tensor.dtype), at.start, axis)

        return [{t.name: handle(t, made[t.name], at) for t in self.spec.outputs} for at in rows]
