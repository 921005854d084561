"""TensorRT and TensorRT-RTX: engines run by addresses of device memory, and recorded as CUDA graphs.

An engine that is not kept yet is built when its graph is loaded, for the GPU that is here. It has not been run
on a GPU yet: what is shown is that engines build, and that addresses, rows and recordings are kept right,
with ONNX Runtime in the place of the GPU (tests/engine/backends/test_tensorrt.py). Calls are those of
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-with-cuda-graphs.html: once run
plainly, then recorded, each recording for its own addresses.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine.backends.base import Array, GraphSpec, Tensor, in_groups
from engine.backends.cuda_memory import CudaMemory, capability
from engine.backends.device_arrays import DeviceArray, Pool, gather, on_device, together
from engine.backends.engine_file import engine_folder, read_engine, write_engine
from engine.backends.tensorrt_build import BATCHES, Build, build_engine, library, trt_log
from engine.errors import BackendUnavailable, WeightsError

log = logging.getLogger(__name__)
RECORDED = 16  # recordings of a graph; the one that was not used for longest goes


class Context(Protocol):
    """What is used of TensorRT's `IExecutionContext`."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Say how large an input is."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """The shape of an output, once those of the inputs are said."""

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Say where a tensor lies."""

    def execute_async_v3(self, stream: int) -> bool:
        """Start the work."""


class TensorRtGraph:
    """One engine, with a context for each batch size; not for two threads at once.

    Args:
        contexts: by their batch size, each with its own profile set.
    """

    def __init__(self, spec: GraphSpec, contexts: Mapping[int, Context], pool: Pool) -> None:
        self.spec = spec
        self._contexts, self._pool = contexts, pool
        self._recordings: dict[tuple[Any, ...], Any] = {}

    @property
    def batches(self) -> tuple[int, ...]:
        """Rows that can run together."""
        return tuple(self._contexts)

    def __call__(self, **feeds: Tensor) -> dict[str, Tensor]:
        """Run once; outputs are handles of device memory, the caller's own.

        Raises:
            ValueError: as `engine.backends.base.Graph`; or the engine takes no such batch.
        """
        placed = {name: on_device(self._pool, value) for name, value in feeds.items()}
        self.spec.check(placed)
        return self._run(placed)

    def each(self, rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Run for several streams, as many together as the engine takes."""
        placed = [{n: on_device(self._pool, v) for n, v in feeds.items()} for feeds in rows]
        for feeds in placed:
            self.spec.check(feeds)
        done: list[dict[str, Tensor]] = [{}] * len(rows)
        for group in in_groups(self.spec, placed, max(self.batches)):
            out = self._run(
                {
                    t.name: gather(self._pool, [placed[i][t.name] for i in group], t.batch_axis)
                    for t in self.spec.inputs
                }
            )
            split = {t.name: out[t.name].rows(t.batch_axis) for t in self.spec.outputs}
            for row, i in enumerate(group):
                done[i] = {name: parts[row] for name, parts in split.items()}
        return done

    def _run(self, feeds: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        rows = self.spec.batch_of(feeds)
        if rows not in self._contexts:
            raise ValueError(f"{self.spec.name}: the engine takes {self.batches} rows, not {rows}")
        context = self._contexts[rows]
        for name, array in feeds.items():
            context.set_input_shape(name, array.shape)
        shapes = [(tuple(context.get_tensor_shape(t.name)), t.dtype) for t in self.spec.outputs]
        made = together(self._pool, shapes)
        out = {t.name: array for t, array in zip(self.spec.outputs, made, strict=True)}
        self._start(context, {**feeds, **out})
        return out

    def _start(self, context: Context, arrays: Mapping[str, DeviceArray]) -> None:
        """Start the work: plainly where these addresses are new, and recorded when they come again."""
        memory = self._pool.memory
        where = tuple((name, array.pointer, array.shape) for name, array in arrays.items())
        known = self._recordings.pop(where, None)
        if callable(known):
            self._recordings[where] = known
            known()
            return
        for name, array in arrays.items():
            context.set_tensor_address(name, array.pointer)

        def enqueue() -> None:
            if not context.execute_async_v3(memory.stream):
                raise BackendUnavailable(f"{self.spec.name}: TensorRT would not run (its log)")

        seen = "seen" if known is None else memory.record(enqueue)
        self._recordings[where] = seen
        if len(self._recordings) > RECORDED:
            del self._recordings[next(iter(self._recordings))]
        if callable(seen):
            seen()
        else:
            enqueue()


class TensorRtBackend:
    """Runs the ONNX files as engines of the GPU that is here, built when they are first asked for.

    Args:
        runtime: "tensorrt" or "tensorrt-rtx".
        rows: most streams that run together.

    Raises:
        BackendUnavailable: the library is not installed, or there is no GPU that it runs on.
    """

    fast = True

    def __init__(self, runtime: str, rows: int) -> None:
        self._trt = library(runtime)
        batches = tuple(size for size in BATCHES if size <= rows)
        target, folder = "sm{}{}".format(*capability()), engine_folder()
        timing = folder / f"{runtime}-{target}.timing"
        self.build = Build(runtime=runtime, target=target, batches=batches, timing=timing)
        self.pool = Pool(CudaMemory())
        self._runtime = self._trt.Runtime(trt_log(self._trt))

    def load(self, spec: GraphSpec, path: Path) -> TensorRtGraph:
        """Load the engine of the ONNX file at `path`, built first where there is none.

        Raises:
            WeightsError: the file is missing, damaged, or its tensors are not those of `spec`.
            BackendUnavailable: no engine can be built or loaded here.
        """
        if not path.exists():
            raise WeightsError(f"{spec.name}: no file {path}; reinstall, or name a weights folder")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        key = self.build.key(spec, digest)
        graph = self._kept(spec, self.build, digest)
        if graph is None:
            log.info("building the engine of %s for %s; it is kept", spec.name, key.target)
            write_engine(engine_folder(), key, build_engine(spec, path, self.build))
            graph = self._kept(spec, self.build, digest)
        if graph is None:
            raise BackendUnavailable(f"{key.library} cannot load its own engine of {spec.name}")
        return graph

    def find(self, spec: GraphSpec, weights: str) -> TensorRtGraph | None:
        """The graph of an engine that is kept, of the most rows; None where none is, or none can be loaded.

        Args:
            weights: digest that it was built with.
        """
        for most in range(len(BATCHES), 0, -1):
            graph = self._kept(spec, replace(self.build, batches=BATCHES[:most]), weights)
            if graph is not None:
                return graph
        return None

    def _kept(self, spec: GraphSpec, how: Build, weights: str) -> TensorRtGraph | None:
        plan = read_engine(engine_folder(), how.key(spec, weights))
        engine = None if plan is None else self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            return None
        contexts = {}
        for profile, rows in enumerate(how.batches):
            contexts[rows] = engine.create_execution_context()
            contexts[rows].set_optimization_profile_async(profile, self.pool.memory.stream)
        return TensorRtGraph(spec, contexts, self.pool)

    def put(self, array: Array) -> Tensor:
        """The array (...,) of any shape in device memory."""
        return on_device(self.pool, np.asarray(array))


def create(*, threads: int, rows: int, callers: int) -> TensorRtBackend:
    """Make the backend of an NVIDIA GPU with TensorRT, for `rows` streams at once."""
    return TensorRtBackend("tensorrt", rows)


def create_rtx(*, threads: int, rows: int, callers: int) -> TensorRtBackend:
    """Make the backend of an NVIDIA RTX card with TensorRT-RTX, for `rows` streams at once."""
    return TensorRtBackend("tensorrt-rtx", rows)
