"""How the latents of the renderer's codec are spread in each frame, and whether that drifts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from engine.config import FPS, EngineConfig
from engine.evaluation.track import FaceTrack
from engine.face.landmarks import crop_transform
from engine.nets.codec import LATENT_CHANNELS, Encoder
from engine.render.composite_maps import cut_crop

PREFIX = "encoder."
AT_ONCE = 16  # crops in a batch


@cache
def codec(weights: Path | None = None) -> Encoder:
    """The encoder of the `tiny` profile: whatever drew a video, it is looked at with this one."""
    path = (weights or EngineConfig().weights) / "painter.safetensors"
    with safe_open(path, "pt") as file:
        of_encoder = {
            name.removeprefix(PREFIX): file.get_tensor(name).float()
            for name in file.keys()  # noqa: SIM118: it is no dict
            if name.startswith(PREFIX)
        }
    net = Encoder()
    net.load_state_dict(of_encoder)
    return net.eval().requires_grad_(False)


@torch.inference_mode()
def latent_statistics(frames: NDArray[np.uint8], track: FaceTrack) -> NDArray[np.float32]:
    """Mean and standard deviation (T, 2, 16) of each channel of the crop's latents, of frames (T, H, W, 3)."""
    net, found = codec(), [np.zeros((0, 2, LATENT_CHANNELS), np.float32)]
    for first in range(0, len(frames), AT_ONCE):
        rows = range(first, min(first + AT_ONCE, len(frames)))
        crops = [cut_crop(frames[t], crop_transform(track.landmarks[t])) for t in rows]
        latents = net(torch.from_numpy(np.concatenate(crops))).flatten(2)
        both = torch.stack([latents.mean(2), latents.std(2, correction=0)], 1)
        found.append(both.numpy())
    return np.concatenate(found)


def drift_a_minute(tracks: NDArray[Any]) -> float:
    """How fast d numbers (T, d) at 25 a second move away in a minute: the rms of the slopes of straight lines.

    0 for less than two frames.
    """
    if len(tracks) < 2:
        return 0.0
    minutes = np.arange(len(tracks)) / FPS / 60
    slopes = np.polyfit(minutes, np.asarray(tracks, np.float64), 1)[0]
    return float(np.sqrt(np.square(slopes).mean()))
