"""`python -m engine.evaluation.ablations --out DIR --seeds 3`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from engine.evaluation.ablations.command import CONFIG, SEEDS, make, plan_of
from engine.evaluation.ablations.results import lines, text
from engine.evaluation.ablations.variants import CHOICES, VARIANTS
from engine.evaluation.measures.settings import Settings


def main(
    out: Annotated[Path, typer.Option(help="Folder of people, runs and results.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = SEEDS,
    variants: Annotated[
        str, typer.Option(help=f"Those alone, by commas; also {', '.join(CHOICES)}.")
    ] = ",".join(VARIANTS),
    config: Annotated[Path, typer.Option(help="Recipe of all runs, as a training file.")] = CONFIG,
    models: Annotated[Path, typer.Option(help="Where CLIP's image encoder may lie.")] = Path(
        "models"
    ),
) -> None:
    """Train the paper's five ablations and the full system on drawn people, and measure them.

    As shipped three seeds take about three hours of one core that has nothing else to do. Run again, it
    goes on, with other variants too; `ablations.json`, `.txt` and `.png` are there after the first run.
    """
    plan = plan_of(out, config=config, seeds=seeds, models=models)
    wanted = tuple(name.strip() for name in variants.split(",") if name.strip())
    plan = replace(plan, variants=wanted)
    results = make(plan, Settings().store, lambda line: typer.echo(line, err=True))
    typer.echo(text(results))
    typer.echo(json.dumps(dict(lines(results))))


if __name__ == "__main__":
    typer.run(main)
