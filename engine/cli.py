"""The commands that need no server. Heavy imports are made inside them, so that --help is quick."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.config import LARGEST_SIDE, MODELS_DIR, EngineConfig, check_models_dir
from engine.errors import BackendUnavailable
from engine.option_groups import given, with_groups
from engine.options import (
    CALM,
    SD15,
    CheckpointOptions,
    EngineOptions,
    LongVideoOptions,
    SamplingOptions,
    ShownOptions,
)
from engine.provenance_cli import ProvenanceOptions
from engine.training_options import PreparingOptions

if TYPE_CHECKING:
    from engine.offline.casting import Casting
    from engine.offline.output import Held
    from engine.offline.video import Report

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
AudioOption = Annotated[Path, typer.Option("--audio", "-a", help="Any file with a sound track.")]
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="TOML file of the run.")]
CpuOption = Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")]


@app.command()
@with_groups
def generate(
    *,
    portrait: Annotated[
        list[Path],
        typer.Option("--portrait", "-p", help="Image of a person; sd15 takes several."),
    ],
    audio: AudioOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Video: .mp4, .mkv, .mov, .webm; no suffix: a folder of PNG."
        ),
    ],
    shown: ShownOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    mix: Annotated[
        list[str] | None,
        typer.Option(help="Another person and how much: c.jpg:0.4.", rich_help_panel=SD15),
    ] = None,
    offline: LongVideoOptions,
    checkpoints: CheckpointOptions,
    provenance: ProvenanceOptions,
) -> None:
    """Make a video of PORTRAIT saying AUDIO, with the engine that also runs live.

    Example: `portraittalk generate -p me.jpg -a hello.wav -o hello.mp4`

    With sd15, a run that was stopped goes on where it was when it is started again in the same words.
    """
    from engine.audio.sound_file import check_sound_file
    from engine.offline.casting import cast
    from engine.offline.output import check_space, claim_output
    from engine.profiles.choose import make_config

    tiny = engine.profile == "tiny"
    side = shown.max_side or (LARGEST_SIDE if tiny else None)
    config = make_config(
        engine.profile,
        {**engine.common(), "max_side": side, "paint_every": 1},
        {**given(sampling), **offline.diffusion(), **given(checkpoints)},
        live=False,
    )
    with _ended_by_signals(), claim_output(out, provenance.provenance()) as held:
        seconds = check_sound_file(audio)
        casting = cast(
            portrait,
            mix or [],
            shown.prompt,
            shown.seed,
            face=shown.face,
            background=shown.background,
            cut_out=tiny,
        )
        check_space(held, casting, config.max_side, seconds, kept=not tiny)
        report = _draw(config, casting, audio, held)
    typer.echo(f"{out}: {report}")


def _draw(config: EngineConfig, casting: Casting, audio: Path, held: Held) -> Report:
    """Load an engine and make a video, with a bar that shows how far it is."""
    from engine.offline.video import generate as make
    from engine.profiles import load_profile

    loaded, resumable = load_profile(config), config.profile == "sd15"
    fused = config.diffusion.long_video == "fusion"
    with bar("windows, then frames" if fused else "drawing frames") as progress:
        return make(
            loaded,
            casting,
            audio,
            held,
            resumable=resumable,
            progress=progress,
            say=_say_beside,
        )


@app.command()
def motion(
    audio: AudioOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help=".csv (Live Link Face columns) or .npz (names, v, pose, fps)."
        ),
    ],
    seed: Annotated[int, typer.Option(help="Seed of head motion and blinks.")] = 0,
    idle: Annotated[bool, typer.Option(help="Add blinks, gaze and head motion.")] = True,
    calm: Annotated[bool, typer.Option("--calm", help=CALM)] = False,
) -> None:
    """Write the 52 face coefficients and the head pose of AUDIO at 25 fps, for 3-D heads.

    Example: `portraittalk motion -a hello.wav -o hello.csv`
    """
    from engine.offline.motion_file import motion as write

    config = EngineConfig(calm=calm)
    with bar("seconds of sound") as progress:
        frames = write(audio, out, config, seed=seed, idle=idle, progress=progress)
    typer.echo(f"{out}: {frames} frames")


@app.command()
def models(
    models_dir: Annotated[Path, typer.Option(help="Your folder of checkpoints.")] = MODELS_DIR,
    profile: Annotated[str, typer.Option(help="Whose checkpoints to list.")] = "sd15",
) -> None:
    """List every checkpoint PROFILE can use: licence, here or not, the command that brings it.

    Nothing is fetched. --models-dir and the hub's own cache are both looked in.
    """
    from rich.console import Console
    from rich.table import Table

    from engine.loaders.registry import rows

    listed = rows(models_dir, profile=profile)
    if not listed:
        typer.echo(f"{profile}: nothing to bring, its weights are in the package")
        return
    table = Table("id", box=None)
    table.columns[0].no_wrap = True
    for heading in ("file", "size", "licence", "here"):
        table.add_column(heading, overflow="fold")
    for row in listed:
        here = "yes" if row.present else "needed" if row.needed else "no"
        table.add_row(row.id, row.file, row.size, row.licence, here)
    console = Console()
    console.print(table)
    for row in listed:
        if not row.present:
            console.print(
                f"{row.id}:\n  {row.command}", soft_wrap=True, highlight=False, markup=False
            )


@app.command()
@with_groups
def prepare(
    *,
    videos: Annotated[Path, typer.Argument(help="Folder of talking videos; HDTF or MEAD too.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of prepared clips to write.")],
    options: PreparingOptions,
) -> None:
    """Cut talking VIDEOS into clips to train on; run again, it goes on where it stopped.

    Writes clips, a contact sheet to look at, and a report of what was left out and why.
    """
    check_models_dir(options.models_dir)
    with training_packages():
        from engine.training.commands import PrepareOptions, prepare_folder
    with bar("preparing") as progress:
        report = prepare_folder(
            videos,
            out,
            PrepareOptions(**given(options)),
            progress=lambda done, total, name: progress(done, total),
        )
    typer.echo(report, nl=False)


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help="codec, identity, animate or joint.")],
    config: ConfigOption,
    cpu: CpuOption = False,
) -> None:
    """Train one STAGE of the full-size system; run again, it goes on exactly where it stopped.

    Several GPUs: `accelerate launch --multi-gpu -m server.cli train joint --config C`. Several CPUs:
    `torchrun --nproc-per-node 2 -m server.cli train joint --config C --cpu`. Examples of a
    configuration are in the package, engine/training/configs.
    """
    with training_packages():
        from engine.training.portraittalk.run_stage import train as run
    _say_once(f"{stage}: held-out loss {run(config, stage, cpu=cpu)['held_out']:.4f}")


@app.command()
def distill(
    config: ConfigOption,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of fetched tools: LPIPS is kept there.")
    ] = None,
    cpu: CpuOption = False,
) -> None:
    """Teach the trained system to draw a frame in 1 to 4 steps, through its own frame cache."""
    with training_packages():
        from engine.training.portraittalk.run_stage import distill as run
    _say_once(f"distill: held-out L1 {run(config, cache=cache, cpu=cpu)['held_out']:.4f}")


def _say_beside(notice: str) -> None:
    """Print a remark where it is not taken for the result."""
    typer.echo(notice, err=True)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let whoever ends the process, or closes its terminal, have it tidy up first as Ctrl-C does."""

    def end(number: int, _: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def bar(task: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that shows how far `task` is; it takes what is done and what there is in all."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    with Progress(*columns, TimeRemainingColumn(), speed_estimate_period=3600) as bar:
        shown = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(shown, completed=done, total=total)


def _say_once(line: str) -> None:
    """Print in the first of several training processes (torch's launchers number them)."""
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(line)


@contextlib.contextmanager
def training_packages() -> Iterator[None]:
    """Say in words which extra a missing package belongs to."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"this needs the training packages ({error.name} is missing): "
            "pip install 'portraittalk[train]'"
        ) from error
