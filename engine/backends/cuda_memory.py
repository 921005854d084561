"""Memory of an NVIDIA GPU, and the stream that all work goes through in order (`cuda.bindings`).

It has not been run on a GPU yet; calls are those of https://nvidia.github.io/cuda-python/cuda-bindings.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from engine.backends.base import Array
from engine.errors import BackendUnavailable


def _runtime() -> ModuleType:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendUnavailable(
            f"no CUDA bindings are installed ({error}): pip install 'portraittalk[rtx]'"
        ) from error
    made: ModuleType = runtime
    return made


def _done(runtime: ModuleType, answer: tuple[Any, ...]) -> Any:
    """What a call of CUDA gave, without its error.

    Raises:
        BackendUnavailable: it failed.
    """
    error, *given = answer
    if error != runtime.cudaError_t.cudaSuccess:
        said = runtime.cudaGetErrorString(error)[1].decode()
        raise BackendUnavailable(f"no NVIDIA GPU can be used ({said})")
    return given[0] if given else None


def capability() -> tuple[int, int]:
    """Compute capability of the first GPU: (8, 9).

    Raises:
        BackendUnavailable: there is no GPU, no driver, or `cuda.bindings` is not installed.
    """
    runtime = _runtime()
    names = runtime.cudaDeviceAttr
    both = names.cudaDevAttrComputeCapabilityMajor, names.cudaDevAttrComputeCapabilityMinor
    asked = [_done(runtime, runtime.cudaDeviceGetAttribute(name, 0)) for name in both]
    return int(asked[0]), int(asked[1])


class CudaMemory:
    """An `engine.backends.device_arrays.Memory` on the first GPU.

    Its stream waits for CUDA's default one and is waited for by it, so work of torch, which is there, and
    work here happen in the order of the calls.

    Raises:
        BackendUnavailable: as `capability`.
    """

    def __init__(self) -> None:
        self._runtime = _runtime()
        self.stream = int(self._do("cudaStreamCreate"))

    def take(self, size: int) -> int:
        """Address of `size` bytes."""
        return int(self._do("cudaMalloc", size))

    def give(self, pointer: int) -> None:
        """Free what `take` gave; it waits for all work on the device."""
        self._do("cudaFree", pointer)

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy within the device."""
        self._do("cudaMemcpyAsync", to, source, size, self._kind("DeviceToDevice"), self.stream)

    def upload(self, to: int, array: Array) -> None:
        """Copy the array (...,), C-contiguous, to the device; it may change when this returns."""
        kind = self._kind("HostToDevice")
        self._do("cudaMemcpyAsync", to, array.ctypes.data, array.nbytes, kind, self.stream)
        self._do("cudaStreamSynchronize", self.stream)

    def download(self, array: Array, source: int) -> None:
        """Fill the array (...,), C-contiguous, from the device."""
        kind = self._kind("DeviceToHost")
        self._do("cudaMemcpyAsync", array.ctypes.data, source, array.nbytes, kind, self.stream)
        self._do("cudaStreamSynchronize", self.stream)

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record the work that `run` would start, as a CUDA graph; what starts it, in one launch."""
        modes = self._runtime.cudaStreamCaptureMode
        self._do("cudaStreamBeginCapture", self.stream, modes.cudaStreamCaptureModeThreadLocal)
        try:
            run()
        finally:
            graph = self._do("cudaStreamEndCapture", self.stream)
        ready = self._do("cudaGraphInstantiate", graph, 0)
        return lambda: self._do("cudaGraphLaunch", ready, self.stream)

    def _kind(self, name: str) -> Any:
        return getattr(self._runtime.cudaMemcpyKind, f"cudaMemcpy{name}")

    def _do(self, call: str, *arguments: Any) -> Any:
        return _done(self._runtime, getattr(self._runtime, call)(*arguments))
