"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), AlexNet, with the published linear layers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

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


class Lpips(nn.Module):
    """Perceptual distance of two batches of images (B, 3, H, W) in [-1, 1] -> (B,)."""

    def __init__(self, cache: Path) -> None:
        super().__init__()
        with fetch("lpips-alexnet", cache)[0].open("rb") as file:
            saved = _ArraysOnly(file).load()

        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(np.array(array, np.float32))

        self.mean: Tensor
        self.std: Tensor
        self.convolutions = nn.ModuleList()
        for index, (stride, padding) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))):
            layer = saved["AlexNet_0"][f"Conv_{index}"]
            kernel = tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()  # HWIO -> OIHW
            conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], stride, padding)
            conv.weight.data, conv.bias.data = kernel, tensor(layer["bias"])  # type: ignore[union-attr]
            self.convolutions.append(conv)
        for index in range(5):
            linear = tensor(saved[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]).permute(3, 2, 0, 1)
            self.register_buffer(f"linear{index}", linear.contiguous())
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])
        self.requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> channel-normalised activations (B, C, h, w) of the five layers."""
        x = (x - self.mean) / self.std
        kept = []
        for index, conv in enumerate(self.convolutions):
            if index in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(conv(x))
            kept.append(x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-10))
        return kept

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance (B,) of `a` and `b`; 0 for equal images."""
        total = torch.zeros(len(a), device=a.device)
        for index, (x, y) in enumerate(zip(self.features(a), self.features(b), strict=True)):
            weight = getattr(self, f"linear{index}")
            total = total + F.conv2d((x - y).square(), weight).mean((1, 2, 3))
        return total
