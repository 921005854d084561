"""How the frames of the full-size system are sampled, as settings; and their noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from engine.config import FrameStart, PlacementOf
from engine.diffusion.samplers import SamplerSettings
from engine.errors import ConfigError

_BETWEEN = 0x5EED  # so that a stream's first noise is not drawn again


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling(SamplerSettings):
    """How a frame is sampled."""

    num_inference_steps: int = 4
    trailing: bool = True  # as training samples
    tiny_codec: bool = True  # what decodes; and what encodes, unless `tiny_latents` says
    tiny_latents: bool | None = None
    long_video: Literal["cache", "fusion", "neither"] = "cache"  # see `DiffusionSettings`
    window: int = 16  # of latent fusion, in frames
    overlap: int = 4
    placement: PlacementOf = "commanded"  # measured: read from each drawn frame for the next
    start: FrameStart = "noise"  # last: the frame before, with noise
    start_strength: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.start_strength <= 1:
            raise ConfigError(
                f"start_strength={self.start_strength} is out of range; above 0 to 1, the share of the "
                "steps that are gone from the frame before"
            )
        if self.long_video == "fusion" and self.start == "last":
            raise ConfigError(
                "start='last': long_video='fusion' samples all frames together, so none is the last; use "
                "start='noise'"
            )
        if self.long_video == "fusion" and self.placement == "measured":
            raise ConfigError(
                "placement='measured': long_video='fusion' samples all frames together, so none is there to "
                "be measured before the next; use placement='commanded'"
            )
        if self.sampler == "flow":
            raise ConfigError(
                "sampler='flow' takes a network's velocity, and this one gives noise; use ddim, euler, "
                "dpm++, lcm or tcd"
            )


def noise_between(seed: int) -> torch.Generator:
    """Where a sampler draws the noise between its steps from: the same for every frame of a stream.

    Noise of its own for each frame would be flicker that nothing in the picture asks for.
    """
    return torch.Generator().manual_seed(seed ^ _BETWEEN)
