"""`portraittalk evaluate`: videos of a set made, measured, and told in one page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import bar
from engine.errors import ConfigError, DataError
from server.extras import extra

if TYPE_CHECKING:
    from engine.evaluation.clips import Prepared
    from engine.evaluation.run import Plan
    from engine.evaluation.systems import Made, Protocol

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
ATTEMPTS = 3  # at a clip, while the machine is too busy to deliver it
FEW_HELD = 0.02  # of the frames


@app.command()
def evaluate(
    wanted: Annotated[
        Path | None, typer.Option("--set", help="Folder: set.toml, or HDTF or MEAD as distributed.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="live, offline, full; ablations: steps4, no-cache, no-animatenet, warp; by commas."
        ),
    ] = "offline",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")] = Path(
        "report"
    ),
    videos: Annotated[
        Path | None,
        typer.Option(help="Finished videos of any system: CLIP.mp4, or PROTOCOL/CLIP.mp4."),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="pose-given, free, or both by a comma.")
    ] = "pose-given,free",
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two reports, side by side; needs no set.")
    ] = None,
    blind: Annotated[
        str, typer.Option(help="Also a page on which people judge two systems: live,full.")
    ] = "",
    votes: Annotated[
        list[Path] | None,
        typer.Option(help="A file of votes of such a page in --out; may be given again."),
    ] = None,
    ablations: Annotated[
        Path | None,
        typer.Option(
            help="Results of `python -m engine.evaluation.ablations`, for the paper's Table 2: "
            "ablations.json, or its folder, in which what is missing is trained first (hours)."
        ),
    ] = None,
) -> None:
    """Measure SET with every engine: a report of one page, `index.html`, and `report.json`.

    Example: `portraittalk evaluate --set my_set --engine live,offline,full --out report`

    Run again, it goes on where it stopped, and makes and measures only what has changed.
    """
    with extra("evaluate"):
        if compare is not None:
            _compare(*compare, out)
        elif votes:
            _count(votes, out)
        elif wanted is None:
            raise ConfigError("name a set with --set, two reports with --compare, or --votes")
        else:
            _evaluate(_plan(wanted, engine, out, videos, protocol), blind, ablations)


def _count(votes: list[Path], out: Path) -> None:
    from engine.evaluation.blind import HIDDEN, read_votes

    typer.echo(str(read_votes(votes, out / HIDDEN)))


def _plan(wanted: Path, engines: str, out: Path, videos: Path | None, protocols: str) -> Plan:
    from engine.evaluation.run import Plan
    from engine.evaluation.sets import read_set
    from engine.evaluation.systems import PROTOCOLS, check_engines
    from engine.outputs import own_folder

    names = tuple(dict.fromkeys(name.strip() for name in engines.split(",") if name.strip()))
    if names or videos is None:
        check_engines(names)
    asked = [name.strip() for name in protocols.split(",")]
    if unknown := [name for name in asked if name not in PROTOCOLS]:
        raise ConfigError(f"protocol {unknown[0]!r}: it is one of {', '.join(PROTOCOLS)}")
    if videos is not None and not videos.is_dir():
        raise ConfigError(f"--videos: no folder {videos}")
    found = read_set(wanted)
    if "live" in names:
        from server.evaluation.chromium import find_chromium

        find_chromium()
    own_folder(out)
    return Plan(found, names, out, videos, tuple(p for p in PROTOCOLS if p in asked), live)


def _evaluate(plan: Plan, blind: str, ablations: Path | None) -> None:
    from engine.evaluation.ablations.command import results_at, shown
    from engine.evaluation.about import about
    from engine.evaluation.blind import write_blind
    from engine.evaluation.measures import Settings
    from engine.evaluation.page import write_report
    from engine.evaluation.run import evaluate as run
    from engine.evaluation.table import Report

    pair = [name.strip() for name in blind.split(",")] if blind else []
    if blind and len(pair) != 2:
        raise ConfigError(f"--blind {blind}: name two systems, as in live,full")
    ablated = None
    if ablations is not None:
        ablated = results_at(ablations, Settings().store, lambda line: typer.echo(line, err=True))
    begun = time.monotonic()
    with bar("work") as progress:
        outcome = run(plan, progress, lambda line: typer.echo(line, err=True))
    if not outcome.rows:
        raise ConfigError("nothing could be evaluated: " + "; ".join(w for _, w in outcome.bad))
    told = {} if ablated is None else {"ablations": ablated.data}
    report = Report.of(outcome, about() | told, time.monotonic() - begun)
    part = "" if ablations is None or ablated is None else shown(ablated, ablations)
    write_report(outcome, report, plan.out, part)
    for line in report.data["fooled"]:
        typer.echo(line, err=True)
    if pair:
        count = write_blind(outcome, pair[0], pair[1], plan.out, seed=0)
        typer.echo(f"{plan.out / 'blind.html'}: {count} pairs")
    left = f", {len(outcome.bad)} left out" if outcome.bad else ""
    typer.echo(f"{plan.out / 'index.html'}: {len(outcome.rows)} videos{left}")


def live(clip: Prepared, protocol: Protocol, out: Path) -> Made:
    """Make a clip's video as it is delivered to a viewer, without loss from there on.

    Tried again while the machine is too busy; what was best is kept, and said.
    """
    from engine.evaluation.lossless import write_lossless
    from engine.evaluation.systems import Made
    from server.evaluation.chromium import run_chromium
    from server.evaluation.live import POSED, SERVE, Delivered, deliver

    command = (*POSED, str(clip.real)) if protocol == "pose-given" else SERVE
    tries: list[Delivered | DataError] = []
    with run_chromium() as browser:
        while len(tries) < ATTEMPTS and not any(
            isinstance(one, Delivered) and one.held <= FEW_HELD * len(one.frames) for one in tries
        ):
            try:
                tries.append(deliver(browser, clip.portrait, clip.pcm, out.parent, command))
            except DataError as error:
                tries.append(error)
    came = [one for one in tries if isinstance(one, Delivered)]
    if not came:
        raise DataError(f"in {len(tries)} tries, at last: {tries[-1]}")
    best = min(came, key=lambda one: one.held)
    share = best.held / len(best.frames)
    notes = [f"live: the best of {len(tries)} tries"] if len(tries) > 1 else []
    if share > FEW_HELD:
        notes.append(
            f"live: this machine was too busy, {share:.0%} of the frames did not come in time; "
            "these figures are those of an overloaded server"
        )
    write_lossless(best.frames, clip.pcm, out)
    return Made(tuple(notes), (("latency_ms", best.latency_ms), ("held_share", share)))


def _compare(a: Path, b: Path, out: Path) -> None:
    from engine.evaluation.compare import differences, read_report
    from engine.evaluation.compare_page import compare_page
    from engine.outputs import own_folder

    sides = (a, read_report(a)), (b, read_report(b))
    rows = differences(sides[0][1], sides[1][1])
    own_folder(out)
    (out / "compare.html").write_text(compare_page(*sides, rows), encoding="utf-8")
    for row in rows:
        told: dict[str, Any] = {n: round(getattr(row, n), 4) for n in ("a", "b", "mean", "low", "high")}  # fmt: skip
        typer.echo(f"{row.whose:16} {row.protocol:10} {row.name:16} {told} {row.verdict}")
    typer.echo(str(out / "compare.html"))
