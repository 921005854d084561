"""ONNX Runtime: the portable second run time on a CPU, and the run times of an NVIDIA GPU.

Nothing here has been run on a GPU yet. Names and values of the providers' options are those of
onnxruntime-gpu 1.31 and of https://onnxruntime.ai/docs/execution-providers.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    RuntimeException,
)

from engine.backends.base import BATCH, Array, GraphSpec, Tensor
from engine.backends.device_memory import DeviceGraph, DeviceTensor
from engine.errors import BackendUnavailable, WeightsError

Provider = tuple[str, dict[str, str]]  # name and options, as `InferenceSession` takes them
Providers = Callable[[GraphSpec, Path], list[Provider]]  # who runs a graph, the first one first

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_NEEDED = {
    CUDA: "an NVIDIA driver, CUDA and cuDNN (pip install 'portraittalk[gpu]' brings the last two)",
    TENSORRT: "an NVIDIA driver, CUDA, cuDNN and TensorRT 10, which NVIDIA gives out itself "
    "(pip install 'tensorrt-cu13>=10.13.2,<11')",
}


class OnnxRuntimeGraph:
    """One inference session on the CPU; tensors are numpy arrays."""

    def __init__(self, spec: GraphSpec, session: ort.InferenceSession) -> None:
        self.spec = spec
        self._session = session
        self._names = [t.name for t in spec.outputs]

    def __call__(self, **feeds: Tensor) -> dict[str, Tensor]:
        """Run once; outputs are fresh arrays that the caller owns."""
        self.spec.check(feeds)
        return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))

    def each(self, rows: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """One stream after another: together, its products would round otherwise (by 1e-5)."""
        return [self(**feeds) for feeds in rows]


class OnnxRuntimeBackend:
    """Runs the same ONNX files with the providers that `providers` names for each.

    Args:
        threads: CPU threads of one graph.
        device: where tensors between graphs stay: "cuda"; None: numpy arrays on the host.
        rows: most streams that run together, on a device.
        fast: see `engine.backends.base.Backend`.
    """

    def __init__(
        self,
        threads: int,
        providers: Providers,
        *,
        device: str | None = None,
        rows: int = 1,
        fast: bool = False,
    ) -> None:
        self.fast = fast
        self._providers, self._device, self._rows = providers, device, rows
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.log_severity_level = 3

    def load(self, spec: GraphSpec, path: Path) -> OnnxRuntimeGraph | DeviceGraph:
        """Load `path`.

        Raises:
            WeightsError: the file is missing, damaged, or its tensors are not those of `spec`.
            BackendUnavailable: the provider that should run it cannot; none takes its place.
        """
        if not path.exists():
            raise WeightsError(f"{spec.name}: no file {path}; reinstall, or name a weights folder")
        providers = self._providers(spec, path)
        try:
            session = ort.InferenceSession(
                path, self._options, providers=providers, enable_fallback=0
            )
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf) as error:
            raise WeightsError(f"{spec.name}: {path} is not a readable ONNX file") from error
        except (EPFail, RuntimeError, RuntimeException) as error:
            raise _cannot_run(spec, providers[0], str(error)) from error
        # Without a driver or a library it only says so in its log and goes on with the CPU.
        if session.get_providers()[0] != providers[0][0]:
            raise _cannot_run(spec, providers[0], "its log above")
        have = {t.name for t in (*session.get_inputs(), *session.get_outputs())}
        missing = [t.name for t in (*spec.inputs, *spec.outputs) if t.name not in have]
        if missing:
            raise WeightsError(f"{spec.name}: {path.name} lacks the tensors {missing}")
        if self._device is None:
            return OnnxRuntimeGraph(spec, session)
        return DeviceGraph(spec, session, self._device, self._rows)

    def put(self, array: Array) -> Tensor:
        """The array (...,) of any shape in device memory; on a CPU the array itself."""
        if self._device is None:
            return array
        whole = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)
        return DeviceTensor(whole, array.shape, array.dtype, row=0, axis=0)


def _cannot_run(spec: GraphSpec, provider: Provider, reason: str) -> BackendUnavailable:
    name, options = provider
    kept = options.get("trt_engine_cache_path")
    retry = f"; where TensorRT itself was changed, remove {kept}" if kept else ""
    needs = f"; it needs {_NEEDED[name]}" if name in _NEEDED else ""
    said = " ".join(reason.split())
    return BackendUnavailable(
        f"{name} cannot run the graph {spec.name} here{needs}{retry} (ONNX Runtime: {said})"
    )


def on_cpu(spec: GraphSpec, path: Path) -> list[Provider]:
    """The CPU alone."""
    return [("CPUExecutionProvider", {})]


def on_cuda(spec: GraphSpec, path: Path) -> list[Provider]:
    """CUDA, and the CPU for what it lacks; TF32 products only where the spec allows less than fp32.

    Convolutions are chosen by rule and not by trying, so that every start computes the same.
    """
    options = {
        "use_tf32": "0" if spec.precision == "f32" else "1",
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    return [(CUDA, options), *on_cpu(spec, path)]


def on_tensorrt(folder: Path, rows: int = 1) -> Providers:
    """TensorRT in fp16 for the networks, CUDA for geometry and all that needs fp32.

    One engine serves 1 to `rows` streams at once (an optimisation profile).

    An engine takes long to build, so it is kept in `folder`, under a name that another file or
    another version of ONNX Runtime does not share: TensorRT would take it for its own.
    """

    def providers(spec: GraphSpec, path: Path) -> list[Provider]:
        # A free size would mean an engine built anew, within a stream, for every portrait.
        free = {d for axes in spec.dynamic_axes().values() for d in axes.values()}
        if spec.precision == "f32" or free != {BATCH}:
            return on_cuda(spec, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        kept = folder / ort.__version__ / f"{spec.name}-{digest}-{rows}"
        kept.mkdir(parents=True, exist_ok=True)
        options = {
            "trt_fp16_enable": "True",
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(kept),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(kept.parent),
            "trt_profile_min_shapes": _profile(spec, 1),
            "trt_profile_opt_shapes": _profile(spec, rows),
            "trt_profile_max_shapes": _profile(spec, rows),
        }
        return [(TENSORRT, options), *on_cuda(spec, path)]

    return providers


def _profile(spec: GraphSpec, rows: int) -> str:
    """Shapes of the inputs for so many rows, as TensorRT's provider wants them: a:1x2,b:1x3."""
    shapes = ((t.name, "x".join(map(str, t.sized(rows)))) for t in spec.inputs)
    return ",".join(f"{name}:{shape}" for name, shape in shapes)


def engine_folder() -> Path:
    """Where TensorRT's engines are kept: the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "portraittalk" / "tensorrt"


def create(*, threads: int, rows: int, callers: int) -> OnnxRuntimeBackend:
    """Make the backend with `threads` CPU threads a graph; its sessions take any number of `callers`."""
    return OnnxRuntimeBackend(threads, on_cpu)


def create_cuda(*, threads: int, rows: int, callers: int) -> OnnxRuntimeBackend:
    """Make the backend of an NVIDIA GPU, for `rows` streams at once.

    Raises:
        BackendUnavailable: the installed ONNX Runtime is one without CUDA.
    """
    _require(CUDA)
    return OnnxRuntimeBackend(threads, on_cuda, device="cuda", rows=rows, fast=True)


def create_tensorrt(*, threads: int, rows: int, callers: int) -> OnnxRuntimeBackend:
    """Make the backend of an NVIDIA GPU with TensorRT, for `rows` streams at once.

    Raises:
        BackendUnavailable: the installed ONNX Runtime is one without TensorRT.
    """
    _require(TENSORRT)
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt")  # loads its libraries from where pip put them
    providers = on_tensorrt(engine_folder(), rows)
    return OnnxRuntimeBackend(threads, providers, device="cuda", rows=rows, fast=True)


def _require(name: str) -> None:
    """Refuse a build of ONNX Runtime without the provider, else load the libraries it needs."""
    if name not in ort.get_available_providers():
        raise BackendUnavailable(
            f"the installed onnxruntime {ort.__version__} has no {name}: pip uninstall onnxruntime, "
            "then pip install 'portraittalk[gpu]'; only one of onnxruntime and onnxruntime-gpu may "
            "be installed"
        )
    ort.preload_dlls()  # CUDA and cuDNN as pip installed them
