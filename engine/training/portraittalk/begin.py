"""The system that a run starts from, and what its earlier stages left."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.errors import DataError
from engine.loaders.face_encoder import check_space
from engine.loaders.registry import find
from engine.loaders.run_card import WEIGHTS, Stage, Start, read_card
from engine.loaders.safetensors_header import tensor_names
from engine.loaders.start_weights import start_model, start_tokens
from engine.loaders.trained import load_stages
from engine.training.data.clips import Clip
from engine.training.portraittalk.stage_config import ModelSettings, RunConfig, earlier
from engine.training.portraittalk.system import Earlier, Origin, TalkingSystem


def start_of(settings: ModelSettings) -> Start:
    """What a configuration starts from."""
    if settings.size == "small":
        return Start(kind="random", seed=settings.seed)
    return Start(kind="public", adapter=settings.adapter)


def begin(
    settings: ModelSettings, side: int, models_dir: Path, clips: Sequence[Clip]
) -> TalkingSystem:
    """The system a run starts from, for images of `side` pixels.

    Raises:
        WeightsError: a checkpoint is missing (the message holds the command that brings it), damaged
            or of another family, or the clips' face encoder is not the one the adapter knows.
        DataError: the clips hold embeddings of several face encoders.
    """
    settings, encoder = as_prepared(settings, clips)
    start, config = start_of(settings), settings.config(side)
    if start.adapter != "none" and encoder:
        check_space(encoder, find(start.adapter).space)
    model = start_model(start, config, models_dir)
    words = start_tokens(start, config, models_dir)
    return TalkingSystem(model, settings, words, Origin(start, encoder))


def as_prepared(settings: ModelSettings, clips: Sequence[Clip]) -> tuple[ModelSettings, str]:
    """The settings with the width of the clips' embeddings, and the face encoder's name if it counts.

    Raises:
        DataError: the clips hold embeddings of several face encoders, or no patches where they are read.
    """
    if not clips:
        return settings, ""
    names = sorted({clip.card.face_encoder for clip in clips})
    if len(names) > 1:
        raise DataError(
            f"the clips hold embeddings of several face encoders ({', '.join(names)}); prepare all "
            "of them with one"
        )
    if settings.face_embedding == 0:
        width = clips[0].embeddings.shape[1] - settings.config().patch_numbers
        if width < 1:
            raise DataError(
                'the clips hold none of CLIP\'s patches, which projection = "plus" reads; prepare them '
                "with --face-encoder insightface-clip"
            )
        settings = dataclasses.replace(settings, face_embedding=width)
    return settings, names[0] if settings.face_encoder else ""


def build_system(run: RunConfig, stage: str, clips: Sequence[Clip]) -> TalkingSystem:
    """The networks of a run with what its earlier stages learnt."""
    system = begin(run.model, run.data.size, run.models, clips)
    found = [name for name in earlier(stage) if (run.folder(name) / WEIGHTS).is_file()]
    load_stages(system.model, system.origin.start, [run.folder(name) for name in found])
    system.origin = dataclasses.replace(system.origin, earlier=tuple(_left(run, found)))
    return system


def _left(run: RunConfig, stages: Iterable[Stage]) -> Iterable[Earlier]:
    for name in stages:
        path = run.folder(name) / WEIGHTS
        card = read_card(path)
        yield Earlier(name, None if card is None else card.step, frozenset(tensor_names(path)))
