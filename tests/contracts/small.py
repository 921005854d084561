"""What the tests of the full-size profile at small size share."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.audio.speech_encoder import WIDTH
from engine.avatar import AvatarEngine
from engine.backends.cuda_graph import Record
from engine.config import EngineConfig
from engine.enroll import Identity
from engine.motion.retarget import FaceBasis
from engine.profiles.sd15 import Parts, random_parts, sampling_of
from engine.render.base import FrameCondition
from engine.render.sd15 import DiffusionRenderer
from engine.render.sd15_networks import FrameNetworks
from engine.render.sd15_sampling import Sampling
from tests.contracts.shared_graphs import SharedGraphs


def stirred(config: EngineConfig) -> tuple[AvatarEngine, DiffusionRenderer]:
    """The engine with random weights away from the zeros that guidance and caches start from."""
    parts = random_parts(config.diffusion, WIDTH, torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parts.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    renderer = renderer_of(parts, sampling_of(config))
    return AvatarEngine.load(config, SharedGraphs(), renderer), renderer


def renderer_of(
    parts: Parts, sampling: Sampling, record: Record | None = None
) -> DiffusionRenderer:
    """A renderer of these networks with the bundled face basis."""
    return DiffusionRenderer(
        parts.model,
        tokenise=parts.tokenise,
        embed=parts.embed,
        depth=FaceBasis.load(EngineConfig().weights / "basis.npz").depth,
        sampling=sampling,
        record=record,
    )


@contextmanager
def decoded() -> Iterator[list[Tensor]]:
    """Gathers the latents (1, 4, h, w) of every frame drawn meanwhile."""
    kept: list[Tensor] = []
    decode = FrameNetworks.decode

    def keep(networks: FrameNetworks, latents: Tensor) -> list[np.ndarray]:
        kept.extend(latents.split(1))
        return decode(networks, latents)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameNetworks, "decode", keep)
        yield kept


@contextmanager
def conditions_only() -> Iterator[list[FrameCondition]]:
    """Gathers what every frame is to show; meanwhile each is drawn as the bare portrait."""
    kept: list[FrameCondition] = []

    def draw(renderer: Any, jobs: Any) -> list[tuple[Any, Any]]:
        kept.extend(condition for _, _, condition in jobs)
        return [(face.rgb, cache) for face, cache, _ in jobs]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionRenderer, "draw", draw)
        yield kept


def write_wav(path: Path, sound: np.ndarray) -> Path:
    """Write 16 kHz PCM (N,) in [-1, 1] as a file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return path


def shown_in(folder: Path) -> list[bytes]:
    """The pictures of a folder as pixels: the files say besides when and by whom they were made."""
    return [np.asarray(Image.open(path)).tobytes() for path in sorted(folder.iterdir())]


def film(engine: AvatarEngine, identity: Identity, sound: np.ndarray, cut: int) -> np.ndarray:
    """Frames (T, H, W, 3) of a sound (N,) that comes in pieces of `cut` samples."""
    state = engine.start(identity, seed=3)
    frames = [f for i in range(0, len(sound), cut) for f in engine.step(state, sound[i : i + cut])]
    return np.stack([f.rgb for f in [*frames, *engine.flush(state)]])
