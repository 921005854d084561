"""Log-mel spectrum as a convolution, so that it can be part of an exported graph."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIELD, STRIDE = 400, 320  # samples under one frame, and between two
PAST = FIELD - STRIDE  # samples needed before the first new one


class LogMel(nn.Module):
    """Log-mel spectrum of the same 25 ms windows as the network's frames."""

    basis: Tensor
    bank: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        size, bins = 512, 257
        time = torch.arange(FIELD, dtype=torch.float64)
        angle = 2 * math.pi * torch.arange(bins, dtype=torch.float64)[:, None] * time / size
        window = torch.hann_window(FIELD, periodic=True, dtype=torch.float64)
        basis = torch.cat([torch.cos(angle) * window, torch.sin(angle) * window]).float()
        self.register_buffer("basis", basis[:, None], persistent=False)
        self.register_buffer("bank", _mel_bank(mels, bins), persistent=False)
        self.bins = bins

    def forward(self, pcm: Tensor) -> Tensor:
        """`pcm` (B, PAST + 320 T), 16 kHz -> (B, T, mels), about zero mean and unit variance for speech."""
        spectrum = F.conv1d(pcm[:, None], self.basis, stride=STRIDE)
        power = spectrum[:, : self.bins] ** 2 + spectrum[:, self.bins :] ** 2
        mel = torch.matmul(power.transpose(1, 2), self.bank)
        return (torch.log(mel + 1e-4) + 3.0) / 4.0


def _mel_bank(mels: int, bins: int) -> Tensor:
    top = 1127 * math.log(1 + 8000 / 700)
    edges = 700 * (torch.exp(torch.linspace(20.0, top, mels + 2) / 1127) - 1)
    frequency = torch.linspace(0, 8000, bins)[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp_min(0)
