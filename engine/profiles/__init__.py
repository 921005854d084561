"""A configuration in, a loaded engine out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.config import EngineConfig
from engine.errors import BackendUnavailable
from engine.telemetry import silence

if TYPE_CHECKING:
    from engine.avatar import AvatarEngine


def load_profile(config: EngineConfig) -> AvatarEngine:
    """Load the engine of a profile.

    Raises:
        BackendUnavailable: the packages that sd15 needs are not installed.
        WeightsError: a checkpoint is missing; the message says how to bring it.
    """
    silence()
    if config.profile == "tiny":
        from engine.avatar import AvatarEngine

        return AvatarEngine.load(config)
    try:
        from engine.profiles.sd15 import load_engine
    except ImportError as error:
        raise BackendUnavailable(
            f"the sd15 profile needs the diffusion packages ({error}): "
            "pip install 'portraittalk[diffusion]'"
        ) from None
    return load_engine(config)
