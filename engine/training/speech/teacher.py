"""Features of a public speech recogniser's encoder: targets for our own small one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engine.loaders.packages import fetch

F32 = NDArray[np.float32]
RATE, FRAME_HZ = 16_000, 50
WIDTH = 288
_WINDOW, _KEEP, _LEFT = 1.28, 0.48, 0.56  # s; the kept piece has 0.24 s of sound after it


class Moonshine:
    """Moonshine tiny's encoder (MIT) on short windows of sound, so that it knows little of the future."""

    def __init__(self, cache: Path, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            fetch("moonshine", cache)[0], options, ["CPUExecutionProvider"]
        )

    def __call__(self, pcm: F32) -> F32:
        """Sound (N,) at 16 kHz -> (N // 320, 288), frame k at about (k + 1/2) / 50 s."""
        frames = len(pcm) // 320
        out = np.zeros((frames, WIDTH), np.float32)
        padded = np.pad(pcm, (int(_LEFT * RATE), int(_WINDOW * RATE)))
        step = int(_KEEP * FRAME_HZ)
        for first in range(0, frames, step):
            piece = padded[first * 320 : first * 320 + int(_WINDOW * RATE)]
            made = self._session.run(None, {"input_values": piece[None].astype(np.float32)})
            features = made[0][0]
            # its frames are 384 samples apart, the first centred near 512 samples
            count = min(step, frames - first)
            when = (_LEFT * RATE + (np.arange(count) + 0.5) * 320 - 512) / 384
            low = np.clip(when.astype(int), 0, len(features) - 2)
            part = np.clip(when - low, 0, 1)[:, None]
            out[first : first + count] = features[low] * (1 - part) + features[low + 1] * part
        return out


def fit_projection(features: F32, width: int) -> tuple[F32, F32]:
    """Mean and whitening projection (288, width) onto the strongest directions of (N, 288)."""
    mean = features.mean(0)
    _, size, rows = np.linalg.svd(features - mean, full_matrices=False)
    scale = np.sqrt(len(features)) / np.maximum(size[:width], 1e-6)
    return mean, (rows[:width].T * scale).astype(np.float32)
