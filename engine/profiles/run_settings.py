"""What a trained run asks of the settings it is drawn with, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.config import DiffusionSettings, EngineConfig
from engine.errors import ConfigError
from engine.loaders.run_card import REMEMBERING, TrainedRun
from engine.profiles.checkpoints import encoder_of, few_step_lora


def settings_of_run(run: TrainedRun) -> tuple[int, dict[str, Any]]:
    """Denoising steps, and fields of `DiffusionSettings`, with which the trainer itself sampled."""
    card = run.card
    how = {
        "sampler": card.sampling.sampler,
        "guidance_scale": card.sampling.guidance_scale,
        "codec": "tiny",
        "long_video": "cache" if card.stage in REMEMBERING else "neither",
        "adapter": card.start.adapter,
        "conditioning": card.networks.conditioning,
    }
    if card.face is not None:
        how["face_encoder"] = encoder_of(run)
    return card.sampling.num_inference_steps, how


def check_given(run: TrainedRun, given: Mapping[str, Any]) -> None:
    """Refuse options that contradict what a run was trained with.

    Args:
        given: fields of `DiffusionSettings` that the user chose.

    Raises:
        ConfigError: one does; the message says what to leave out.
    """
    _, own = settings_of_run(run)
    own.setdefault("face_encoder", "")
    for name in ("adapter", "face_encoder", "conditioning"):
        if name in given and given[name] != own[name]:
            raise ConfigError(
                f"{name}={given[name]!r}: {run.folder} was trained with "
                f"{own[name] or 'none'!r}; leave the option out, the run knows"
            )


def check_run(run: TrainedRun, config: EngineConfig) -> None:
    """Refuse settings with which a run would not draw what it learnt.

    Raises:
        ConfigError: a setting is one of them; the message says what to do.
    """
    card, how = run.card, config.diffusion
    if how.random_weights:
        raise ConfigError(
            f"random_weights: {run.folder} says itself what it starts from; leave the option out"
        )
    if card.start.kind == "random" and how.codec == "full":
        raise ConfigError(
            f"codec='full': {run.folder} has only its own small autoencoder; use codec='tiny'"
        )
    if card.stage not in REMEMBERING and how.long_video != "neither":
        raise ConfigError(
            f"long_video={how.long_video!r}: the stage {card.stage} of {run.folder} never saw the "
            "frame before; use long_video='neither', or train joint"
        )
    if how.sd15_file:
        raise ConfigError(
            f"sd15_file: {run.folder} says itself what it starts from; leave the option out"
        )
    _check_guidance(run, how)
    if card.student:
        _check_student(run, config)
    elif card.start.kind == "random" and (lora := few_step_lora(how)):
        raise ConfigError(
            f"sampler={how.sampler!r} loads {lora}, which is for Stable Diffusion 1.5 and not for the "
            f"small networks of {run.folder}; use sampler={card.sampling.sampler!r}"
        )


def _check_guidance(run: TrainedRun, how: DiffusionSettings) -> None:
    if how.guidance_scale in (0, 1) or run.card.sampling.guidable:
        return
    why = (
        "is a student, whose teacher's guidance is in it"
        if run.card.student
        else "was trained without ever leaving words and identity out, so there is nothing to guide from"
    )
    raise ConfigError(f"guidance_scale={how.guidance_scale:g}: {run.folder} {why}; use 1")


def _check_student(run: TrainedRun, config: EngineConfig) -> None:
    how, own = config.diffusion, run.card.sampling
    if lora := few_step_lora(how):
        raise ConfigError(
            f"{lora}: {run.folder} is a student of few steps already; leave that LoRA and its sampler "
            f"out, and use sampler={own.sampler!r}"
        )
    if how.sampler != own.sampler:
        raise ConfigError(
            f"sampler={how.sampler!r}: {run.folder} was distilled with {own.sampler!r} and draws with "
            "it alone; leave --sampler out"
        )
    if config.num_inference_steps > own.num_inference_steps:
        raise ConfigError(
            f"num_inference_steps={config.num_inference_steps}: {run.folder} was distilled to 1 to "
            f"{own.num_inference_steps} steps"
        )
