"""A small audio-lip expert: whether a mouth belongs to a sound, and how many frames it is early or late.

Two towers give each frame of 40 ms an embedding: one of the sound's log-mel spectrum, one of eight distances
of the lips, nose and chin. Their cosine says whether they belong together. It is this project's own and no
SyncNet: its figures compare only with its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine.nets.log_mel import PAST, LogMel

MELS, PER_FRAME = 40, 2  # log-mel bands; spectra in a frame of the video
LIPS = 8
WIDTH = 32  # of an embedding
# Pairs of the 478 landmarks whose distances say what a mouth does; the first two are inner lips.
PAIRS = ((13, 14), (81, 178), (0, 17), (61, 291), (78, 308), (2, 0), (2, 17), (2, 152))
GAPS = 2  # of them are gaps, told by their logarithm: that lips meet counts more than how far they part


def lip_shapes(landmarks: NDArray[Any]) -> NDArray[np.float32]:
    """Landmarks (T, 478, 2) -> (T, 8) distances over that of the outer eye corners, not yet standardised."""
    eyes = np.linalg.norm(landmarks[:, 33] - landmarks[:, 263], axis=-1)
    first, second = (list(side) for side in zip(*PAIRS, strict=True))
    apart = np.linalg.norm(landmarks[:, first] - landmarks[:, second], axis=-1) / eyes[:, None]
    apart[:, :GAPS] = np.log(apart[:, :GAPS] + 0.02)
    return apart.astype(np.float32)


def standardised(shapes: Tensor) -> Tensor:
    """Shapes (B, T, 8) about their mean over time, in their standard deviations."""
    return (shapes - shapes.mean(1, keepdim=True)) / (shapes.std(1, keepdim=True) + 1e-4)


class SyncExpert(nn.Module):
    """Embeds sound and lips; both see two tenths of a second before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogMel(MELS)
        self.hear = _tower(MELS * PER_FRAME, 96)
        self.see = _tower(LIPS, 64)

    def spectrum(self, pcm: Tensor) -> Tensor:
        """Sound (B, 640 T) at 16 kHz -> (B, T, 80), about the mean of its bands."""
        mel = self.mel(F.pad(pcm, (PAST, 0)))
        frames = mel.unflatten(1, (-1, PER_FRAME)).flatten(2)
        return frames - frames.mean(1, keepdim=True)

    def forward(self, spectrum: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
        """Spectra (B, T, 80) and shapes (B, T, 8) -> unit embeddings (B, T, 32) of both."""
        heard = self.hear(spectrum.transpose(1, 2)).transpose(1, 2)
        seen = self.see(standardised(shapes).transpose(1, 2)).transpose(1, 2)
        return F.normalize(heard, dim=-1), F.normalize(seen, dim=-1)


def _tower(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(inputs, width, 5, padding=2),
        nn.GELU(),
        nn.Conv1d(width, width, 5, padding=2),
        nn.GELU(),
        nn.Conv1d(width, width, 3, padding=1),
        nn.GELU(),
        nn.Conv1d(width, WIDTH, 1),
    )
