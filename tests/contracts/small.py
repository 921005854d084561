"""What the tests of the full-size profile at small size share."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import torch

from engine.avatar import AvatarEngine


def stirred(engine: AvatarEngine) -> AvatarEngine:
    """The engine with random weights away from the zeros that guidance and caches start from."""
    generator = torch.Generator().manual_seed(0)
    for parameter in engine._renderer._model.parameters():  # type: ignore[attr-defined]
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return engine


def write_wav(path: Path, sound: np.ndarray) -> Path:
    """Write 16 kHz PCM (N,) in [-1, 1] as a file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path
