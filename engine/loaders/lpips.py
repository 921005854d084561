"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), AlexNet or VGG16, with the published linear layers (v0.1)."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import DataError
from engine.loaders.packages import fetch


class _ArraysOnly(pickle.Unpickler):
    """Reads nested dicts of numpy arrays and refuses every other class."""

    _ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return the class if it is one that arrays need."""
        if (module, name) not in self._ALLOWED:
            raise DataError(f"refusing to unpickle {module}.{name}: only arrays are wanted")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


@dataclass(frozen=True, slots=True)
class _Backbone:
    """How a network's convolutions follow each other."""

    name: str  # in the file
    strides: tuple[tuple[int, int], ...]  # stride and padding of each
    pooled: tuple[int, ...]  # convolutions that a pooling goes before
    pool: int  # its side; its stride is 2
    kept: tuple[int, ...]  # whose activations are compared


_BACKBONES = {
    "alexnet": _Backbone(
        "AlexNet_0", ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), (1, 2), 3, (0, 1, 2, 3, 4)
    ),
    "vgg16": _Backbone("VGG16_0", ((1, 1),) * 13, (2, 4, 7, 10), 2, (1, 3, 6, 9, 12)),
}


class Lpips(nn.Module):
    """Perceptual distance of two batches of images (B, 3, H, W) in [-1, 1] -> (B,)."""

    def __init__(self, cache: Path, net: Literal["alexnet", "vgg16"] = "alexnet") -> None:
        super().__init__()
        with fetch(f"lpips-{net}", cache)[0].open("rb") as file:
            saved = _ArraysOnly(file).load()

        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(np.array(array, np.float32))

        self.mean: Tensor
        self.std: Tensor
        self._backbone = backbone = _BACKBONES[net]
        self.convolutions = nn.ModuleList()
        for index, (stride, padding) in enumerate(backbone.strides):
            layer = saved[backbone.name][f"Conv_{index}"]
            kernel = tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()  # HWIO -> OIHW
            conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], stride, padding)
            conv.weight.data, conv.bias.data = kernel, tensor(layer["bias"])  # type: ignore[union-attr]
            self.convolutions.append(conv)
        for index in range(len(backbone.kept)):
            linear = tensor(saved[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]).permute(3, 2, 0, 1)
            self.register_buffer(f"linear{index}", linear.contiguous())
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])
        self.requires_grad_(False)

    def layers(self, x: Tensor) -> Iterator[Tensor]:
        """Images (B, 3, H, W) -> channel-normalised activations (B, C, h, w), layer by layer."""
        x = (x - self.mean) / self.std
        for index, conv in enumerate(self.convolutions):
            if index in self._backbone.pooled:
                x = F.max_pool2d(x, self._backbone.pool, 2)
            x = F.relu(conv(x))
            if index in self._backbone.kept:
                yield x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-10)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance (B,) of `a` and `b`; 0 for equal images."""
        return self.apart(self.layers(a), self.layers(b))

    def apart(self, a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
        """Distance (B,) of images whose five `layers` are `a` and `b`."""
        found = []
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            weight = getattr(self, f"linear{index}")
            found.append(F.conv2d((x - y).square(), weight).mean((1, 2, 3)))
        return torch.stack(found).sum(0)
