"""What a trained run says about itself: a card in the metadata of its `weights.safetensors`.

No torch: the card is read before anything is loaded. With it a run is rebuilt exactly as it was
trained, or refused in words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.config import Adapter
from engine.errors import ConfigError, WeightsError
from engine.loaders.safetensors_header import metadata
from engine.nets.sd15_config import Sd15Config

WEIGHTS = "weights.safetensors"
KEY = "portraittalk"
VERSION = 1
Stage = Literal["codec", "identity", "animate", "joint", "distill"]
STAGES: tuple[Stage, ...] = get_args(Stage)
DRAWING: tuple[Stage, ...] = ("distill", "joint", "animate", "identity")  # what is taken first
REMEMBERING = ("joint", "distill")  # stages whose networks learnt to look at the frame before


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Start(_Part):
    """What a run begins with: public checkpoints, or random weights of `seed`."""

    kind: Literal["public", "random"]
    adapter: Adapter = "none"
    seed: int = 0


class FaceSpace(_Part):
    """Whose face embeddings a run was trained on, and how many numbers they have."""

    name: str
    width: int


class RunSampling(_Part):
    """How the trainer itself samples a frame; the terms are those of `SamplerSettings`."""

    sampler: str
    trailing: bool
    num_inference_steps: int
    times: tuple[int, ...]  # of these steps
    guidance_scale: float = 1.0
    guidable: bool  # words and identity were dropped now and then: guidance means something


class Normalisation(_Part):
    """How what goes in is scaled; there is one way, and a run of another is not read."""

    pixels: Literal["-1 to 1"] = "-1 to 1"
    embedding: Literal["unit length"] = "unit length"


class RunCard(_Part):
    """One stage of a run, as it was trained.

    Attributes:
        step: how many steps it had taken.
        after: earlier stages whose weights it needs beside its own, and their steps; None where a
            version that wrote no card made them.
        networks: sizes and switches of the whole system.
        latents: whose encoder makes the latents.
        face: None without a face encoder.
    """

    version: Literal[1] = 1
    stage: Stage
    step: int
    after: dict[Stage, int | None] = {}
    start: Start
    networks: Sd15Config
    latents: Literal["vae", "tiny"]
    face: FaceSpace | None
    normalisation: Normalisation = Normalisation()
    sampling: RunSampling

    @property
    def student(self) -> bool:
        """Whether it was distilled to few steps."""
        return self.stage == "distill"

    def packed(self) -> dict[str, str]:
        """As metadata of a safetensors file."""
        return {KEY: self.model_dump_json()}


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run that is to be drawn with: its card, and the folders of its stages in order."""

    card: RunCard
    folders: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """The folder of the stage itself."""
        return self.folders[-1]


def read_card(path: Path) -> RunCard | None:
    """The card of a weight file; None where it has none.

    Raises:
        WeightsError: the file is missing or damaged.
        ConfigError: the card is of another version, or was changed by hand.
    """
    text = metadata(path).get(KEY)
    if text is None:
        return None
    try:
        raw: dict[str, Any] = json.loads(text)
        version = raw.get("version")
        if version != VERSION:
            raise ConfigError(
                f"{path} says what it is in version {version!r}, this reads {VERSION}; install the "
                "portraittalk that trained it"
            )
        return RunCard.model_validate_json(text)
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} does not say what it was trained with: {_first(error)}"
        ) from None


def _first(error: Exception) -> str:
    """The first thing that is wrong, in a line."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def find_run(trained: Sequence[Path]) -> TrainedRun:
    """The run that the folders `trained` name: a stage's, or the one that holds the stages.

    Several folders are one run where the last stage needs the others.

    Raises:
        WeightsError: there are no weights, or a stage that is needed is not beside it.
        ConfigError: it does not say what it was trained with, draws nothing, or several are named.
    """
    folder = _stage_folder(trained[-1])
    card = read_card(folder / WEIGHTS)
    if card is None:
        raise ConfigError(
            f"{folder / WEIGHTS} was written by an older version and does not say what it was trained "
            "with; `portraittalk train STAGE --config C` (or distill) of the same configuration "
            "writes that in, without a step more"
        )
    _check_drawing(card, folder)
    earlier = [(name, folder.parent / name) for name in STAGES if name in card.after]
    for name, place in earlier:
        _check_earlier(card, name, place)
    folders = (*(place for _, place in earlier), folder)
    known = {place.resolve() for place in (*folders, *(folder.parent / name for name in STAGES))}
    if other := [str(f) for f in trained[:-1] if f.resolve() not in known]:
        raise ConfigError(
            f"--trained {', '.join(other)} is no part of the run {folder}; name one run"
        )
    return TrainedRun(card, folders)


def _stage_folder(folder: Path) -> Path:
    """The folder of a stage: `folder` itself, or of its stages the one that was trained last."""
    if (folder / WEIGHTS).is_file():
        return folder
    for name in DRAWING:
        if (folder / name / WEIGHTS).is_file():
            return folder / name
    raise WeightsError(
        f"no {WEIGHTS} in {folder}, nor in a stage below it ({', '.join(DRAWING)}); name the folder "
        "of a run"
    )


def _check_drawing(card: RunCard, folder: Path) -> None:
    bare = card.stage == "identity" and card.start.kind == "random"
    if card.stage == "codec" or bare:
        raise ConfigError(
            f"{folder} is the stage {card.stage}, after which no frame can be drawn; train animate "
            "and joint too"
        )


def _check_earlier(card: RunCard, name: Stage, place: Path) -> None:
    path = place / WEIGHTS
    if not path.is_file():
        raise WeightsError(
            f"the stage {card.stage} builds on {name}, and {path} is not there; keep the stages of a "
            "run together"
        )
    own, wanted = read_card(path), card.after[name]
    if wanted is not None and (own is None or own.step != wanted):
        found = "an unknown number of" if own is None else own.step
        raise ConfigError(
            f"{path} was trained on since: {card.stage} began from its {wanted} steps, now it has "
            f"{found}; train {card.stage} again"
        )
