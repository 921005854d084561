"""Drawn people to train on and others to measure with, twice: with a face encoder's numbers, and with CLIP's.

Recognition networks cannot tell the cartoons apart (SFace: two pictures of one person are less alike than two
people's means). So the face encoder is one that never errs: the traits a person is drawn with. In its place
stands CLIP's image encoder: the public one where it is at hand, else one of random weights, which is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from engine.errors import ConfigError
from engine.evaluation.ablations.variants import Encoder
from engine.evaluation.drawn_set import FIRST
from engine.loaders.clip_image import ClipImageEncoder, load_clip_image
from engine.loaders.registry import find, locate
from engine.outputs import own_folder
from engine.training.data.clips import Split
from engine.training.data.drawn_clips import Pen, write_drawn_clip
from engine.training.data.drawn_person import DrawnPerson
from engine.training.data.face_embedding import FaceEmbedder

TRAITS, WIDTH = 11, 128
CLIP = "clip"
UNTRAINED = "clip-untrained"


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """How many are drawn, and how long."""

    trained: int = 40
    held_out: int = 8
    frames: int = 12
    size: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.trained <= FIRST:
            raise ConfigError(f"people={self.trained} is out of range; 1 to {FIRST}")
        if self.held_out < 1 or self.frames < 4:
            raise ConfigError("wanted at least one person held out and four frames of each")

    def all(self) -> list[tuple[int, Split]]:
        """Seeds of the people."""
        trained: list[tuple[int, Split]] = [(i, "train") for i in range(self.trained)]
        return trained + [(FIRST + i, "test") for i in range(self.held_out)]


def traits(person: DrawnPerson) -> NDArray[np.float32]:
    """Unit embedding (128,) of what a face is drawn with: its shape, skin, lips and hair; no clothes, no wall."""
    colours = np.concatenate([person.skin, person.lips, person.hair]) / 128 - 1
    shape = (np.array(person.stretch) - 1) * 10
    told = np.concatenate([shape, colours])
    spread = np.random.default_rng(0).standard_normal((TRAITS, WIDTH)) / np.sqrt(TRAITS)
    vector = told @ spread
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def clip_encoder(models: Path) -> ClipImageEncoder:
    """CLIP's image encoder of `models`; where none is there a small one of random weights."""
    checkpoint = find(CLIP)
    if (folder := locate(checkpoint, models)) is not None:
        return load_clip_image((folder / checkpoint.files[0]).parent, checkpoint.space)
    sizes = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
        projection_dim=WIDTH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = CLIPVisionModelWithProjection(sizes)
    return ClipImageEncoder(net.requires_grad_(False), UNTRAINED)


def people_folders(out: Path) -> dict[Encoder, Path]:
    """Where the clips of each encoder lie below `out`."""
    return {"traits": out.resolve() / "traits", "clip": out.resolve() / "clip"}


def write_people(out: Path, people: People, models: Path, say: Callable[[str], None]) -> None:
    """Draw what is not yet drawn below `out`."""
    own_folder(out)
    encoders: dict[Encoder, FaceEmbedder | None] = {"traits": None, "clip": clip_encoder(models)}
    pen, written = Pen.load(people.size), 0
    for encoder, folder in people_folders(out).items():
        for seed, split in people.all():
            person = DrawnPerson.draw(seed)
            place = folder / "clips" / f"{split}-{person.name}"
            if (place / "clip.json").is_file():
                continue
            known = replace(person, embedding=traits(person))
            write_drawn_clip(place, known, pen, seed, people.frames, split, encoders[encoder])
            written += 1
    if written:
        say(f"{written} clips of drawn people")
