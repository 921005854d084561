"""The command `portraittalk`. Heavy imports are made inside the commands, so that --help is quick."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import AvatarError, BackendUnavailable
from engine.options import (
    AdapterOption,
    BackendOption,
    Codec,
    CompileOption,
    ConditioningOption,
    EncoderOption,
    FullCodecOption,
    GuidanceOption,
    LongVideoOption,
    MixOption,
    ModelsDirOption,
    OverlapOption,
    Profile,
    ProfileOption,
    RandomOption,
    SamplerOption,
    SpeechOption,
    StepsOption,
    ThreadsOption,
    TrainedOption,
    UseOption,
    WindowOption,
    given,
)
from server.run import BUNDLED_PORTRAIT, run_server
from server.settings import ServerSettings

if TYPE_CHECKING:
    from engine.avatar import AvatarEngine
    from engine.offline.video import Casting, Report

app = typer.Typer(
    help="A portrait that talks, live in the browser, on a plain CPU.\n\n"
    "Start with: portraittalk serve",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the page; 0 picks a free one.")] = None,
    max_sessions: Annotated[
        int | None, typer.Option(help="Viewers at once; one more is told to wait.")
    ] = None,
    codec: Annotated[Codec | None, typer.Option(help="Video codec to prefer.")] = None,
    video_bitrate_bps: Annotated[
        int | None, typer.Option("--bitrate", help="Video bits per second, fixed.")
    ] = None,
    watchdog_s: Annotated[
        float | None, typer.Option("--watchdog", help="Seconds of silence before a viewer is gone.")
    ] = None,
    ice_server: Annotated[
        list[str] | None, typer.Option(help="stun: or turn: address; may be given again.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Further name of this server; may be given again.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Other page that may use this server, https://site; may be given again."),
    ] = None,
    threads: ThreadsOption = None,
    backend: BackendOption = None,
    profile: ProfileOption = Profile.tiny,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    sampler: SamplerOption = None,
    models_dir: ModelsDirOption = None,
    use: UseOption = None,
    adapter: AdapterOption = None,
    face_encoder: EncoderOption = None,
    random_weights: RandomOption = None,
    trained: TrainedOption = None,
    conditioning: ConditioningOption = None,
    compile_: CompileOption = None,
    frame_code: Annotated[
        bool | None,
        typer.Option("--frame-code", help="Test mode: a code strip on every frame, beep times."),
    ] = None,
) -> None:
    """Serve the page and the talking portrait.

    Loads the engine, enrols the bundled portrait, then prints one address to open in a browser.
    On one machine nothing else is needed: no STUN server, no certificate. From another machine a
    browser gives its microphone only to https pages.

    Host to watchdog, ICE servers, allowed hosts and origins, and frame code can be set as variables
    too: `AVATAR_PORT=9000`, `AVATAR_MAX_SESSIONS=1`, `AVATAR_ALLOW_ORIGIN=https://a.example`. A flag
    wins over a variable.
    """
    settings = ServerSettings.merge(
        os.environ,
        given(
            host=host,
            port=port,
            max_sessions=max_sessions,
            codec=codec,
            video_bitrate_bps=video_bitrate_bps,
            watchdog_s=watchdog_s,
            ice_servers=ice_server or None,
            allow_host=tuple(allow_host or ()) or None,
            allow_origin=tuple(allow_origin or ()) or None,
            frame_code=frame_code,
        ),
    )
    from engine.profiles.choose import how_slow, load_profile, make_config, seconds_a_frame

    config = make_config(
        profile.value,
        given(threads=threads, backend=backend, num_inference_steps=steps),
        given(
            guidance_scale=guidance,
            sampler=sampler,
            models_dir=models_dir,
            use=use,
            adapter=adapter,
            face_encoder=face_encoder,
            random_weights=random_weights,
            trained=trained or None,
            conditioning=conditioning,
            compile=compile_,
        ),
        live=True,
    )
    engine = load_profile(config)
    if profile is Profile.sd15:
        from server.portraits import decode_image

        seconds = seconds_a_frame(engine, decode_image(BUNDLED_PORTRAIT.read_bytes()))
        typer.echo(f"sd15: {how_slow(seconds, config.stream.frame_ms)}")
    run_server(engine, settings)


@app.command()
def generate(
    portrait: Annotated[
        list[Path],
        typer.Option("--portrait", "-p", help="Picture of one person; sd15 takes several."),
    ],
    audio: Annotated[Path, typer.Option("--audio", "-a", help="Any file with a sound track.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Video: .mp4, .mkv, .mov; no suffix: a folder of PNG."),
    ],
    prompt: Annotated[
        str, typer.Option(help='What the face expresses: "smile 0.6, brows up"; sd15: any words.')
    ] = "",
    seed: Annotated[int, typer.Option(help="The same seed gives the same video.")] = 0,
    max_side: Annotated[
        int | None, typer.Option(help="Scale the portrait down to this many pixels.")
    ] = None,
    threads: ThreadsOption = None,
    backend: BackendOption = None,
    profile: ProfileOption = Profile.tiny,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    sampler: SamplerOption = None,
    mix: MixOption = None,
    full_codec: FullCodecOption = None,
    speech: SpeechOption = None,
    long_video: LongVideoOption = None,
    window: WindowOption = None,
    overlap: OverlapOption = None,
    models_dir: ModelsDirOption = None,
    use: UseOption = None,
    adapter: AdapterOption = None,
    face_encoder: EncoderOption = None,
    random_weights: RandomOption = None,
    trained: TrainedOption = None,
    conditioning: ConditioningOption = None,
    compile_: CompileOption = None,
) -> None:
    """Make a video of PORTRAIT saying AUDIO, with the engine that also runs live.

    Example: `portraittalk generate -p me.jpg -a hello.wav -o hello.mp4`

    With sd15, a run that was stopped goes on where it was when it is started again in the same words.
    """
    from engine.profiles.choose import cast, load_profile, make_config

    config = make_config(
        profile.value,
        given(
            threads=threads,
            backend=backend,
            max_side=max_side,
            num_inference_steps=steps,
            paint_every=1,
        ),
        given(
            guidance_scale=guidance,
            sampler=sampler,
            codec=None if full_codec is None else "full" if full_codec else "tiny",
            speech=speech,
            long_video=long_video,
            window=window,
            overlap=overlap,
            models_dir=models_dir,
            use=use,
            adapter=adapter,
            face_encoder=face_encoder,
            random_weights=random_weights,
            trained=trained or None,
            conditioning=conditioning,
            compile=compile_,
        ),
        live=False,
    )
    casting = cast(portrait, mix or [], prompt, seed)
    report = _draw(load_profile(config), casting, audio, out)
    went_on = f" ({report.resumed_at / report.pieces:.0%} done before)" if report.resumed_at else ""
    typer.echo(
        f"{out}: {report.frames} frames{went_on} in {report.seconds:.1f} s, "
        f"{report.realtime_factor:.2g} x real time"
    )


def _draw(engine: AvatarEngine, casting: Casting, audio: Path, out: Path) -> Report:
    """Make the video, with a bar that shows how far it is."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from engine.offline.video import generate as make

    together = engine.config.diffusion.long_video == "fusion"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task("windows, then frames" if together else "drawing frames", total=None)
        return make(
            *(engine, casting, audio, out),
            resumable=engine.config.profile == "sd15",
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


@app.command()
def motion(
    audio: Annotated[Path, typer.Option("--audio", "-a", help="Any file with a sound track.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help=".csv (Live Link Face columns) or .npz (names, v, pose, fps)."
        ),
    ],
    seed: Annotated[int, typer.Option(help="Seed of head motion and blinks.")] = 0,
    idle: Annotated[bool, typer.Option(help="Add blinks, gaze and head motion.")] = True,
) -> None:
    """Write the 52 face coefficients and the head pose of AUDIO at 25 fps, for 3-D heads.

    Example: `portraittalk motion -a hello.wav -o hello.csv`
    """
    from engine.offline.motion_file import motion as write

    frames = write(audio, out, seed=seed, idle=idle)
    typer.echo(f"{out}: {frames} frames")


@app.command()
def models(
    models_dir: Annotated[
        Path, typer.Option("--models-dir", help="Your folder of checkpoints.")
    ] = Path("models"),
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
def prepare(
    videos: Annotated[Path, typer.Argument(help="Folder of talking videos; HDTF or MEAD too.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of prepared clips to write.")],
    layout: Annotated[str, typer.Option(help="auto, plain, hdtf or mead.")] = "auto",
    size: Annotated[int, typer.Option(help="Pixels a side of a prepared picture.")] = 512,
    shard: Annotated[str, typer.Option(help="I/N: only every N-th video from the I-th.")] = "0/1",
    face_encoder: Annotated[str, typer.Option(help="tiny, sface, auraface, insightface.")] = "tiny",
    speech: Annotated[str, typer.Option(help="tiny, hubert-base or hubert-large.")] = "tiny",
    models_dir: Annotated[Path, typer.Option(help="Your folder of checkpoints.")] = Path("models"),
) -> None:
    """Cut talking VIDEOS into clips to train on; run again, it goes on where it stopped.

    Writes clips, a contact sheet to look at, and a report of what was left out and why.
    """
    with training_packages():
        from engine.training.commands import prepare_folder
    typer.echo(
        prepare_folder(
            *(videos, out),
            layout=layout,
            size=size,
            shard=shard,
            face_encoder=face_encoder,
            speech=speech,
            models_dir=models_dir,
        ),
        nl=False,
    )


@app.command()
def train(
    stage: Annotated[str, typer.Argument(help="codec, identity, animate or joint.")],
    config: Annotated[Path, typer.Option("--config", "-c", help="TOML file of the run.")],
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")] = False,
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
    config: Annotated[Path, typer.Option("--config", "-c", help="TOML file of the run.")],
    cache: Annotated[
        Path | None, typer.Option(help="Folder of fetched tools: LPIPS is kept there.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")] = False,
) -> None:
    """Teach the trained system to draw a frame in 1 to 4 steps, through its own frame cache."""
    with training_packages():
        from engine.training.portraittalk.run_stage import distill as run
    _say_once(f"distill: held-out L1 {run(config, cache=cache, cpu=cpu)['held_out']:.4f}")


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


def main() -> None:
    """Run the command; an error of ours is one line, not a traceback."""
    try:
        app()
    except AvatarError as error:
        typer.echo(f"portraittalk: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
