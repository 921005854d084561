"""The command `portraittalk export`. Heavy imports are made inside it, so that --help is quick."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.backends.engine_file import engine_folder
from engine.backends.tensorrt_build import BATCHES, TARGETS, Build, check_target, library
from engine.config import Profile, RandomWeights
from engine.errors import BackendUnavailable, ConfigError
from engine.option_groups import given, with_groups
from engine.options import SD15, CheckpointOptions

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from exports.engines import Made, Plan, Say

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
ExportTo = Literal["tensorrt-rtx", "tensorrt", "onnx"]
Precision = Literal["f16", "f32"]
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What is made, for whom."""

    profile: Annotated[Profile, typer.Option(help="Whose networks.")] = "tiny"
    backend: Annotated[
        ExportTo,
        typer.Option(
            metavar="<name>",
            help="tensorrt-rtx: engines for GeForce and RTX cards, built on any machine. tensorrt: for "
            "the GPU that is here. onnx: the files alone.",
        ),
    ] = "tensorrt-rtx"
    target: Annotated[
        str | None,
        typer.Option(
            help=f"The GPU: {', '.join(TARGETS)}; that of this machine if not given. sm75: RTX 20, "
            "sm80: A100, sm86: RTX 30, sm89: RTX 40, L4, L40; sm120: RTX 50; sm121: DGX Spark."
        ),
    ] = None
    batch: Annotated[
        int, typer.Option(help="Streams in a step at most; engines are built for 1, 2, 4 and 8.")
    ] = 1
    precision: Annotated[
        Precision, typer.Option(help="Of sd15's networks.", rich_help_panel=SD15)
    ] = "f16"
    size: Annotated[
        RandomWeights | None,
        typer.Option(
            help="Random weights of that size in place of checkpoints: to try it out.",
            rich_help_panel=SD15,
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder that keeps sd15's ONNX files.", rich_help_panel=SD15
        ),
    ] = None

    def check(self) -> None:
        """Refuse what would write nothing.

        Raises:
            ConfigError: ONNX files alone, and no folder for them, or they are there.
        """
        if self.backend == "onnx" and self.profile == "tiny":
            raise ConfigError("the ONNX files of tiny are in the package")
        if self.backend == "onnx" and self.out is None:
            raise ConfigError("--backend onnx writes files alone: name their folder with --out")

    def build(self) -> Build | None:
        """How engines are built; None for ONNX files alone.

        Raises:
            BackendUnavailable: the GPU is unknown, or not built for.
        """
        if self.backend == "onnx":
            return None
        target = self.target or _own_target(self.backend)
        check_target(self.backend, target)
        rows = tuple(rows for rows in BATCHES if rows <= max(1, self.batch))
        timing = engine_folder() / f"{self.backend}-{target}.timing"
        return Build(runtime=self.backend, target=target, batches=rows, timing=timing)


@app.command()
@with_groups
def export(options: ExportOptions, checkpoints: CheckpointOptions) -> None:
    """Make the networks of a profile ONNX files, check them, and build TensorRT engines of them.

    Engines lie in your cache folder, where `serve` and `generate` find them; one that is there serves at
    once. Every ONNX file is run by ONNX Runtime on the CPU and compared with its network.

    Half precision is slow on most CPUs: the real sizes take many minutes. `--precision f32` is quicker to make,
    and twice as large.

    Example: `portraittalk export --profile sd15 --backend tensorrt-rtx --target sm89`
    """
    options.check()
    from engine.outputs import own_folder
    from engine.profiles.choose import make_config
    from exports.engines import Plan, make_tiny, peak_bytes

    random = {"random_weights": options.size} if options.size else {}
    config = make_config(options.profile, {}, {**given(checkpoints), **random}, live=True)
    build, out = options.build(), options.out
    if build is not None:
        typer.echo(_ability(build.runtime, build.target))
    if out is not None:
        own_folder(out)
    plan = Plan(engines=engine_folder(), build=build, onnx=out, precision=options.precision)
    make = make_tiny if options.profile == "tiny" else _make_sd15()
    with _bar() as say:
        made = list(make(config, plan, say))
    for one in made:
        typer.echo(_row(one))
    total, seconds = sum(m.engine for m in made), sum(m.build_s + m.export_s for m in made)
    typer.echo(
        f"{len(made)} graphs, engines of {total / MIB:,.0f} MiB, {seconds:.0f} s; most memory "
        f"{peak_bytes() / 2**30:.1f} GiB"
        + (f"; kept in {engine_folder()}" if build is not None else f"; in {out}")
    )


def _make_sd15() -> Callable[[EngineConfig, Plan, Say], Iterator[Made]]:
    try:
        import onnxruntime  # noqa: F401  what checks the files

        from exports.sd15 import make_sd15
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"exporting sd15 needs {error.name}: pip install 'portraittalk[train,ort]'"
        ) from error
    return make_sd15


def _own_target(backend: str) -> str:
    """The architecture of the GPU of this machine."""
    from engine.backends.cuda_memory import capability

    try:
        return "sm{}{}".format(*capability())
    except BackendUnavailable as error:
        if backend == "tensorrt":
            raise
        raise BackendUnavailable(f"{error}; name the GPU to build for with --target") from error


def _ability(backend: str, target: str) -> str:
    """What this machine can do with the engines that it builds."""
    from engine.backends.cuda_memory import capability

    said = f"{backend} {library(backend).__version__}, engines for {target}"
    try:
        own = "sm{}{}".format(*capability())
    except BackendUnavailable as error:
        return f"{said}. They are built here and cannot be run here: {error}"
    if own != target:
        return f"{said}. The GPU here is {own}: they are built here and run elsewhere"
    return f"{said}, the GPU that is here"


@contextlib.contextmanager
def _bar() -> Iterator[Say]:
    """A bar for each thing that is done; where nobody watches, a line for each."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console, begun = Console(stderr=True), dict[str, int]()
    columns = (TextColumn("{task.description:<40}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def say(what: str, done: int, total: int) -> None:
            if what not in begun:
                begun[what] = int(bar.add_task(what, total=None))
                if not console.is_terminal:
                    console.print(what)
            bar.update(bar.task_ids[begun[what]], completed=done, total=total)

        yield say


def _row(made: Made) -> str:
    parity = "-" if made.difference is None else f"{made.difference:.1e}"
    return (
        f"{made.graph:<10} ONNX {made.onnx / MIB:8,.1f} MiB, differs {parity:>7}, engine "
        f"{made.engine / MIB:8,.1f} MiB in {made.build_s:6.1f} s"
    )
