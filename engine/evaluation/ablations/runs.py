"""Trains every variant by its own configuration: each run folder is one of `portraittalk train`.

| below the folder | holds |
| --- | --- |
| `people/` | clips |
| `codec/` | the autoencoder that all variants share: none of them is about it |
| `runs/SEED/VARIANT.toml`, `runs/SEED/VARIANT/` | the configuration, and its stages |
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine.errors import ConfigError
from engine.evaluation.ablations.drawn import People, people_folders, write_people
from engine.evaluation.ablations.variants import (
    FULL,
    KNOWN,
    VARIANTS,
    Encoder,
    Tables,
    configuration,
    trained_as,
    write_configuration,
)
from engine.loaders.run_card import WEIGHTS, Stage, read_card
from engine.outputs import own_folder
from engine.training.portraittalk.run_stage import train
from engine.training.portraittalk.stage_config import STAGES, load_run_config

Say = Callable[[str], None]
RECIPE = "recipe.json"
CODEC: Stage = "codec"
COSTS: dict[Stage, float] = {
    "codec": 0.15,
    "identity": 0.28,
    "animate": 0.28,
    "joint": 0.48,
}  # s a step


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained, where."""

    out: Path
    recipe: Tables
    seeds: int
    people: People = field(default_factory=People)
    models: Path = Path("models")
    variants: tuple[str, ...] = tuple(VARIANTS)

    def __post_init__(self) -> None:
        unknown = [n for n in self.variants or ("",) if n not in KNOWN]
        if unknown:
            raise ConfigError(f"variant {unknown[0]!r}: wanted some of {', '.join(KNOWN)}")

    def begin(self) -> None:
        """Take the folder, or go on in one that was begun with the same recipe; seeds may be added.

        Raises:
            ConfigError: it holds another recipe, or files of somebody else.
        """
        own_folder(self.out)
        path = self.out / RECIPE
        wanted = json.dumps({"tables": self.recipe, "people": asdict(self.people)}, indent=1)
        if path.exists() and path.read_text() != wanted:
            raise ConfigError(
                f"{self.out} was begun with another recipe (see {path}); name another folder"
            )
        path.write_text(wanted)

    @property
    def clips(self) -> dict[Encoder, Path]:
        """The clips of each encoder."""
        return people_folders(self.out / "people")

    def config(self, seed: int, name: str) -> Path:
        """The configuration file of a run."""
        return self.out / "runs" / str(seed) / f"{trained_as(name)}.toml"


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of one run."""

    config: Path
    stage: Stage
    steps: int
    label: str

    @property
    def folder(self) -> Path:
        """Of the stage."""
        return self.config.with_suffix("") / self.stage

    @property
    def done(self) -> bool:
        """Whether it was trained to its last step."""
        path = self.folder / WEIGHTS
        card = read_card(path) if path.is_file() else None
        return card is not None and card.step >= self.steps

    @property
    def cost(self) -> float:
        """Seconds of one quiet core, about."""
        return self.steps * COSTS[self.stage]


def codec_job(plan: Plan) -> Job:
    """The stage that is trained once for all."""
    config = plan.out / "codec.toml"
    tables = configuration(plan.recipe, FULL, 0, plan.clips) | {"run": "codec"}
    write_configuration(tables, config)
    return Job(config, CODEC, load_run_config(config).stage(CODEC).steps, CODEC)


def run_jobs(plan: Plan, seed: int, name: str) -> list[Job]:
    """The other stages of a run; its configuration is written."""
    config = plan.config(seed, name)
    write_configuration(configuration(plan.recipe, name, seed, plan.clips), config)
    run = load_run_config(config)
    return [
        Job(config, stage, run.stage(stage).steps, f"seed {seed}, {name}, {stage}")
        for stage in STAGES
        if stage != CODEC
    ]


def train_all(plan: Plan, say: Say, *, quiet: bool) -> Iterator[tuple[int, str]]:
    """Train what is not yet trained; (seed, variant) of each run when it is whole.

    A whole seed comes before the next, and of a seed the full system first: what is stopped early has rows
    to compare.
    """
    write_people(plan.out / "people", plan.people, plan.models, say)
    first = codec_job(plan)
    names = sorted(plan.variants, key=lambda name: trained_as(name) != FULL)
    trained = dict.fromkeys(map(trained_as, names))
    runs = {(s, n): run_jobs(plan, s, n) for s in range(plan.seeds) for n in trained}
    clock = Clock([first, *(job for jobs in runs.values() for job in jobs)], say)
    clock.take(first, quiet=quiet)
    for (seed, run), jobs in runs.items():
        _share(first.folder, jobs[0].folder.with_name(CODEC))
        for job in jobs:
            clock.take(job, quiet=quiet)
        for name in names:
            if trained_as(name) == run:
                yield seed, name


def _share(codec: Path, folder: Path) -> None:
    """Let a run begin from the codec that is there."""
    own_folder(folder)
    part = folder / f"{WEIGHTS}.part"
    shutil.copyfile(codec / WEIGHTS, part)
    part.replace(folder / WEIGHTS)


class Clock:
    """Takes jobs, and says how long the rest will take."""

    def __init__(self, jobs: list[Job], say: Say) -> None:
        self._say = say
        self._left = {id(job): job.cost for job in jobs if not job.done}
        self._spent, self._worth = 0.0, 0.0
        if self._left:
            total = sum(self._left.values()) / 60
            say(
                f"{len(self._left)} of {len(jobs)} stages to train, about {total:.0f} minutes of a quiet core"
            )

    def take(self, job: Job, *, quiet: bool) -> None:
        """Train a job, unless that was done."""
        if job.done:
            return
        begun = time.monotonic()
        values = train(job.config, job.stage, cpu=True, quiet=quiet)
        self._spent += time.monotonic() - begun
        self._worth += self._left.pop(id(job), 0.0)
        left = sum(self._left.values()) * self._spent / max(self._worth, 1e-9) / 60
        self._say(
            f"{job.label}: held-out loss {values['held_out']:.4g}; about {left:.0f} minutes left"
        )
