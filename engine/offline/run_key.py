"""What the frames of a video depend on, as one number: by it a stopped run knows its own frames."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.config import EngineConfig
from engine.offline.casting import Casting
from engine.profiles.checkpoints import weights_digest


def run_key(
    config: EngineConfig,
    casting: Casting,
    audio: Path,
    *,
    alpha: bool = False,
    marked: str = "",
) -> str:
    """SHA-256 of the options and of the contents of weights, portraits and sound; of no path.

    Args:
        alpha: the frames are kept transparent.
        marked: what else the mark in them depends on.
    """
    nowhere = Path()
    how = replace(config.diffusion, models_dir=nowhere, trained=())
    options = replace(config, weights=nowhere, diffusion=how)
    digest = hashlib.sha256(
        f"{options}{casting.prompt!r}{casting.seed}{casting.face}{alpha}{marked!r}".encode()
    )
    digest.update(weights_digest(config).encode())
    for rgb, share in [*((rgb, 1.0) for rgb in casting.portraits), *casting.mixed]:
        digest.update(f"{rgb.shape}{share}".encode() + np.ascontiguousarray(rgb).tobytes())
    for layer in (casting.alpha, casting.background):
        if layer is not None:
            digest.update(f"{layer.shape}".encode() + np.ascontiguousarray(layer).tobytes())
    with audio.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
