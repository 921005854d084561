"""The rows of the paper's Table 2, and choices that it leaves open: what each changes in a run."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.checks import read_toml
from engine.errors import ConfigError
from engine.training.portraittalk.stage_config import run_config

Tables = dict[str, Any]
Encoder = Literal["traits", "clip"]
FULL = "full"


@dataclass(frozen=True, slots=True)
class Variant:
    """A row of the table.

    Attributes:
        model: what it changes in [model].
        encoder: whose embeddings the clips hold; of CLIP in the face encoder's place.
        strength: the full system, each frame begun from the one before: the share of the steps that is gone
            from it. Nothing of its own is trained.
    """

    title: str
    model: dict[str, Any] = field(default_factory=dict)
    encoder: Encoder = "traits"
    strength: float | None = None


VARIANTS: dict[str, Variant] = {  # the paper's order; the names are those of `published.TABLE_2`
    "unified-attention": Variant("unified attention", {"attention": "unified"}),
    "without-face-encoder": Variant("CLIP image encoder, no face encoder", encoder="clip"),
    "one-reference": Variant("one reference", {"references": "first"}),
    "without-placement-guidance": Variant("no placement guidance", {"placement": False}),
    "without-temporal-attention": Variant("no temporal attention", {"temporal": False}),
    FULL: Variant("full"),
}
# What the paper says in words that can be read in two ways, beside FULL, which is the default.
CHOICES: dict[str, Variant] = {
    "cross-attention": Variant(
        "AnimateNet's features attended to", {"injection": "cross_attention"}
    ),
    "start-last-0.5": Variant("begun from the frame before, 0.5", strength=0.5),
    "start-last-0.25": Variant("begun from the frame before, 0.25", strength=0.25),
}
KNOWN = VARIANTS | CHOICES


def trained_as(name: str) -> str:
    """The variant whose weights another one is sampled with."""
    return name if KNOWN[name].strength is None else FULL


def read_recipe(path: Path) -> Tables:
    """The tables that every variant is trained with.

    Raises:
        ConfigError: no such file, not TOML, unknown keys, or it ablates something itself.
    """
    recipe = read_toml(path)
    run_config(copy.deepcopy(recipe), path.parent)
    own = recipe.get("model", {}).keys() & {n for v in KNOWN.values() for n in v.model}
    if own:
        raise ConfigError(f"{path}: [model] {', '.join(sorted(own))} is for the ablations to set")
    if recipe["data"].get("references", 1) < 2:
        raise ConfigError(f"{path}: [data] references must be 2 or more, to leave all but one out")
    return recipe


def configuration(recipe: Tables, name: str, seed: int, clips: dict[Encoder, Path]) -> Tables:
    """The recipe with the one switch of a variant, and a seed for its weights, batches and noise."""
    variant, tables = KNOWN[name], copy.deepcopy(recipe)
    tables["run"] = name
    tables["data"]["clips"] = str(clips[variant.encoder])
    tables.setdefault("model", {}).update(variant.model, seed=seed)
    tables.setdefault("train", {})["seed"] = seed
    return tables


def write_configuration(tables: Tables, path: Path) -> None:
    """Write such tables as TOML: `portraittalk train STAGE --config` takes the file as well."""
    plain = {n: v for n, v in tables.items() if not isinstance(v, dict)}
    lines = [f"{n} = {json.dumps(v)}" for n, v in plain.items()]
    for table, values in tables.items():
        if isinstance(values, dict):
            lines += ["", f"[{table}]", *(f"{n} = {json.dumps(v)}" for n, v in values.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
