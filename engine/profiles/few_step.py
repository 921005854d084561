"""LoRAs for few steps: how each is sampled, as its authors say, and what it refuses."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.config import EngineConfig, FewStep
from engine.errors import ConfigError


class Sampled(NamedTuple):
    """How a LoRA was made to be sampled.

    Attributes:
        only: it draws in just so many steps.
    """

    sampler: str
    num_inference_steps: int
    only: bool = False


SAMPLED: dict[FewStep, Sampled] = {
    "lcm-lora": Sampled("lcm", 4),
    "tcd-lora": Sampled("tcd", 4),
    "hyper-sd-1step": Sampled("tcd", 1, only=True),
    "hyper-sd-2steps": Sampled("ddim", 2, only=True),
}


def settings_of_few_step(name: FewStep) -> tuple[int, dict[str, Any]]:
    """Denoising steps, and fields of `DiffusionSettings`, that go with a LoRA; none is guided."""
    how = SAMPLED[name]
    return how.num_inference_steps, {"sampler": how.sampler, "guidance_scale": 1.0}


def check_few_step(config: EngineConfig) -> None:
    """Refuse settings with which a LoRA for few steps does not draw what it learnt.

    Raises:
        ConfigError: the sampler or the number of steps is another.
    """
    name, sampler = config.diffusion.few_step, config.diffusion.sampler
    if not name:
        return
    how = SAMPLED[name]
    if sampler != how.sampler:
        raise ConfigError(
            f"sampler={sampler!r}: {name} is sampled with {how.sampler!r}; leave --sampler out"
        )
    if how.only and config.num_inference_steps != how.num_inference_steps:
        raise ConfigError(
            f"num_inference_steps={config.num_inference_steps}: {name} draws in "
            f"{how.num_inference_steps}; leave --steps out"
        )
