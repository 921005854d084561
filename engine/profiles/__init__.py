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
        BackendUnavailable: the packages that sd15 or a HuBERT needs are not installed.
        WeightsError: a checkpoint is missing; the message says how to bring it.
    """
    silence()
    speech_motion = None
    what = "the sd15 profile" if config.profile == "sd15" else config.speech
    try:
        if config.profile == "sd15":
            from engine.profiles.sd15 import load_engine

            return load_engine(config)
        if config.speech != "tiny":
            from engine.profiles.speech import load_speech

            config, speech_motion = load_speech(config)
    except ImportError as error:
        raise BackendUnavailable(
            f"{what} needs the diffusion packages ({error}): pip install 'portraittalk[diffusion]'"
        ) from None
    from engine.avatar import AvatarEngine

    return AvatarEngine.load(config, speech_motion=speech_motion)
