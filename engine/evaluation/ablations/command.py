"""One command from nothing to Table 2: draws people, trains what is missing, samples, measures, writes.

Run again, it goes on where it stopped; results are written after every run, so that a stopped one has a table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.evaluation.ablations.drawn import UNTRAINED, People
from engine.evaluation.ablations.measure import (
    U8,
    Truth,
    drawn_by,
    held_out_batch,
    references,
    steadiness,
)
from engine.evaluation.ablations.picture import side_by_side
from engine.evaluation.ablations.results import FILE, REFERENCES, Results, section, text
from engine.evaluation.ablations.runs import RECIPE, Plan, train_all
from engine.evaluation.ablations.variants import KNOWN, read_recipe
from engine.evaluation.about import about
from engine.training.data.clips import load_clips

Say = Callable[[str], None]
CONFIG = Path(__file__).parents[2] / "training" / "configs" / "ablations.toml"
PICTURE, TABLE = "ablations.png", "ablations.txt"
SEEDS = 3
NOTES = (
    "Drawn people whom no run was trained on, pose-given; a small system from random weights, so absolute "
    "values say nothing about the paper's.",
    "Sync-C: not run, drawn people make no sound that SyncNet could judge. Mouth, r stands beside it: how dark "
    "the mouth's place is, against how wide it was drawn open.",
    "ADFD and LMD: by the face reader on pictures enlarged to 256 pixels, over frames in which it found both "
    "faces.",
    "The face encoder is the traits that a person is drawn with: recognition networks do not tell the drawn "
    "people apart.",
)
UNTRAINED_NOTE = (
    "CLIP's image encoder has random weights: the public one was not at hand. That row shows what a picture's "
    "untrained numbers are worth in the place of a perfect face encoder."
)
STEADY = (
    "Mouth, L1, change, flicker and later are in levels of 255. The drawn frames themselves change by {change:.1f} "
    "a frame and flicker by {flicker:.1f}. Later: how much larger the error is once a run has gone through all "
    "frames, back, and comes by again."
)
FEW_FRAMES = (
    "FID and KID: {count} frames a run, far fewer than the measure wants; of the same order only."
)


def plan_of(
    out: Path,
    *,
    config: Path = CONFIG,
    seeds: int = SEEDS,
    people: People | None = None,
    models: Path = Path("models"),
) -> Plan:
    """What a folder holds already is gone on with; else the recipe is that of `config`.

    Raises:
        ConfigError: the configuration is no recipe, or `out` is somebody else's.
        DataError: the recipe in `out` is damaged.
    """
    begun = out / RECIPE
    if not begun.is_file() or config != CONFIG or people is not None:
        return Plan(out, read_recipe(config), seeds, people or People(), models)
    try:
        kept = json.loads(begun.read_text())
        return Plan(out, kept["tables"], seeds, People(**kept["people"]), models)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{begun} is damaged: {error}; name another folder") from error


def make(plan: Plan, store: Path, say: Say, *, quiet: bool = False) -> Results:
    """Train and measure what is missing; results, table and picture lie in the plan's folder after every run.

    Args:
        store: folder of fetched packages, for Inception.
        quiet: no bar of each stage.

    Raises:
        ConfigError: the folder was begun with another recipe.
        DataError: what it holds is damaged.
    """
    plan.begin()
    measuring, results = Measuring(plan, store), Results({})
    for seed, name in train_all(plan, say, quiet=quiet):
        measuring.take(seed, name)
        results = measuring.results()
        results.write(plan.out / FILE)
        (plan.out / TABLE).write_text(text(results) + "\n")
        measuring.picture(seed, plan.out / PICTURE)
    return results


class Measuring:
    """Measures runs as they come, and keeps what was measured in `measured/` of the plan's folder."""

    def __init__(self, plan: Plan, store: Path) -> None:
        self._plan, self._store = plan, store
        self._truth: Truth | None = None
        self._taken: list[tuple[int, str]] = []

    def take(self, seed: int, name: str) -> None:
        """Sample and measure a run, unless that was done."""
        self._taken.append((seed, name))
        key, last = f"{seed}-{name}", "drawn"  # written after the references
        if self._place(key).is_file() and self._place(last).is_file():
            return
        system, batch, steps = held_out_batch(self._plan.config(seed, name))
        if self._truth is None:
            clips = load_clips(self._plan.clips["traits"], "test")
            self._truth = Truth(batch, [c.card.person for c in clips], self._store)
        if not self._place(last).is_file():
            for reference, frames in references(system, batch).items():
                self._measure(reference, frames, self._truth)
            self._keep(last, self._truth.frames, {})
        if not self._place(key).is_file():
            made, later = drawn_by(system, batch, steps, KNOWN[name].strength)
            self._measure(key, made, self._truth, later)

    def _place(self, key: str) -> Path:
        return self._plan.out / "measured" / f"{key}.npz"

    def _measure(self, key: str, frames: U8, truth: Truth, later: U8 | None = None) -> None:
        """Measure frames (P, T, H, W, 3), and keep both."""
        scores = asdict(truth.scores(frames, later))
        self._keep(key, frames, scores | {"notes": truth.notes})

    def _keep(self, key: str, frames: U8, told: dict[str, Any]) -> None:
        """Keep frames (P, T, H, W, 3) and what is told of them in one file, which appears when it is whole."""
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{key}.part.npz")
        np.savez_compressed(part, frames=frames, told=np.array(json.dumps(told)))
        part.replace(place)

    def _read(self, key: str) -> tuple[U8, dict[str, Any]]:
        """Frames (P, T, H, W, 3) and what was measured of them."""
        with np.load(self._place(key)) as kept:
            return kept["frames"], json.loads(str(kept["told"]))

    def results(self) -> Results:
        """Of the runs that were taken."""
        notes, rows = list(NOTES), []
        for seed, name in self._taken:
            told = self._read(f"{seed}-{name}")[1]
            rows.append({"variant": name, "seed": seed, **_scores(told)})
            notes += told["notes"]
        drawn = self._read("drawn")[0]
        people, frames = drawn.shape[:2]
        moved = [steadiness(one) for one in drawn]
        change, flickers = (np.mean([one[name] for one in moved]) for name in ("change", "flicker"))
        notes.append(STEADY.format(change=change, flicker=flickers))
        notes.append(FEW_FRAMES.format(count=people * frames))
        of_clip = any(KNOWN[name].encoder == "clip" for _, name in self._taken)
        if of_clip and load_clips(self._plan.clips["clip"])[0].card.face_encoder == UNTRAINED:
            notes.append(UNTRAINED_NOTE)
        told_references = {key: _scores(self._read(key)[1]) for key in REFERENCES}
        return Results(
            {
                **about(),
                "people": asdict(self._plan.people),
                "recipe": self._plan.recipe,
                "notes": list(dict.fromkeys(notes)),
                "references": told_references,
                "rows": rows,
            }
        )

    def picture(self, seed: int, path: Path) -> None:
        """Draw all variants of a seed that were taken side by side."""
        shown = {"drawn": "drawn", **{REFERENCES[k]: k for k in REFERENCES}}
        taken = [name for name in KNOWN if (seed, name) in self._taken]
        shown |= {KNOWN[name].title: f"{seed}-{name}" for name in taken}
        side_by_side({title: self._read(key)[0] for title, key in shown.items()}).save(path)


def _scores(told: dict[str, Any]) -> dict[str, Any]:
    return {"people": told["people"], "whole": told["whole"]}


def results_at(path: Path, store: Path, say: Say) -> Results:
    """Results of a file; of a folder, once what is missing there is trained and measured.

    Raises:
        DataError: the file holds none.
        ConfigError: the folder is somebody else's.
    """
    if path.is_file():
        return Results.read(path)
    return make(plan_of(path), store, say)


def shown(results: Results, path: Path) -> str:
    """The part of a page that tells results which `results_at` read at `path`, their picture in it."""
    image = (path.parent if path.is_file() else path) / PICTURE
    if not image.is_file():
        return section(results, "")
    coded = base64.b64encode(image.read_bytes()).decode()
    alt = "every variant, the same people side by side"
    element = f'<img alt="{alt}" src="data:image/png;base64,{coded}">'
    return section(results, f"<div class=wide>{element}</div>")
