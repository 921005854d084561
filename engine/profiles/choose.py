"""From the words of the command line to an engine of either profile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.config import DiffusionSettings, EngineConfig, from_mapping
from engine.errors import ConfigError
from engine.loaders.run_card import find_run
from engine.profiles.few_step import SAMPLED, settings_of_few_step
from engine.profiles.run_settings import check_given, settings_of_run
from engine.types import RgbImage

if TYPE_CHECKING:
    from engine.avatar import AvatarEngine


def make_config(
    profile: str, common: Mapping[str, Any], diffusion: Mapping[str, Any], *, live: bool
) -> EngineConfig:
    """Settings of a profile; values that are None were not given.

    A trained run brings its own in place of the profile's.

    Args:
        common: fields of `EngineConfig`.
        diffusion: fields of `DiffusionSettings`, for sd15 alone.

    Raises:
        ConfigError: no such profile, a value out of range, or one that the profile has no use for
            or that contradicts the run.
        WeightsError: there is no such run.
    """
    given = {name: value for name, value in common.items() if value is not None}
    how = {name: value for name, value in diffusion.items() if value is not None}
    if profile == "sd15":
        config = EngineConfig.sd15(live=live)
        settings = {name: getattr(config.diffusion, name) for name in config.diffusion.__slots__}
        steps = config.num_inference_steps
        if how.get("trained"):
            run = find_run(how["trained"])
            check_given(run, how)
            steps, own = settings_of_run(run)
            settings |= own
        if (few_step := how.get("few_step")) in SAMPLED:
            steps, own = settings_of_few_step(few_step)
            settings |= own
        changed = from_mapping(DiffusionSettings, settings | how)
        given = {"num_inference_steps": steps} | given
        return EngineConfig.sd15(live=live, **given, diffusion=changed)
    files = {} if given.get("speech", "tiny") == "tiny" else _of_files(how)
    idle = {*how} - {*files} | {"num_inference_steps"} & {*given}
    if idle:
        raise ConfigError(f"{', '.join(sorted(idle))}: only --profile sd15 has a use for that")
    diffusion_ = from_mapping(DiffusionSettings, files)
    return from_mapping(EngineConfig, {"profile": profile, "diffusion": diffusion_, **given})


def _of_files(how: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that say where checkpoints are and what they may be used for."""
    return {name: how[name] for name in ("models_dir", "use") if name in how}


def seconds_a_frame(engine: AvatarEngine, portrait: RgbImage) -> float:
    """Time of one frame of `portrait` (H, W, 3), in seconds; one before it warms up.

    Raises:
        PortraitRefused: there is not exactly one usable face.
    """
    stream = engine.config.stream
    state = engine.start(engine.enroll(portrait))
    hop = np.zeros(stream.hop_samples, np.float32)
    while not engine.step(state, hop):
        pass
    began = time.perf_counter()
    engine.step(state, hop)
    return time.perf_counter() - began


def how_heard(config: EngineConfig) -> str:
    """Say what a loaded engine hears with and how far it looks ahead."""
    ahead = config.stream.lookahead_frames * config.stream.frame_ms
    every = config.stream.frame_ms if config.speech == "tiny" else config.speech_hop_ms
    return f"speech: {config.speech} hears every {every:.0f} ms and looks {ahead:.0f} ms ahead"


def how_slow(seconds: float, frame_ms: float) -> str:
    """Say what a time per frame means for live use."""
    times = seconds * 1000 / frame_ms
    if times <= 1:
        return f"one frame takes {seconds * 1000:.0f} ms of the {frame_ms:.0f} ms it may"
    return (
        f"one frame takes {seconds:.1f} s on this computer, {times:,.0f} times too slow for live "
        "pictures: expect one now and then, and whole sound"
    )
