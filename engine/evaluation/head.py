"""Measures how heads move while they speak: `python -m engine.evaluation.head FILE...`.

Each FILE is a film of one speaker with sound. His pose is read from the frames; then the head motion of the
product is driven by his sound, calm and as it is, with several seeds, and both stand beside him: as asked for,
and with --drawn as read back from frames that are drawn of his first one. Angles are in degrees, shifts in
percent of the distance of the outer eye corners, as the face's steady points move in the picture.

Poses are read by the public landmarker with `--landmarker`, else by the project's own landmark net, whose
pitch is half as large again as the landmarker's. Prints a table and one JSON line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from engine.audio.sound_file import read_audio
from engine.avatar import AvatarEngine
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.enroll import Identity
from engine.evaluation.head_figures import AXES, FIGURES, HeadFigures, head_figures
from engine.evaluation.motion import load as load_motion
from engine.evaluation.track import follow, own_reader
from engine.face.landmarks import head_shift
from engine.motion.idle import IdleLife
from engine.motion.retarget import FaceBasis, turn_head
from engine.offline.motion_file import run
from engine.offline.video import frames_of
from engine.training.data.labeller import Labeller
from engine.training.data.talking_video import frames_at
from engine.types import RgbImage

F32 = NDArray[np.float32]
_SCALE = np.array([100, 100], np.float32)  # percent


def asked(pose: F32, identity: Identity, depth: F32) -> F32:
    """The track (T, 5) that poses (T, 6), in the order of `POSE`, ask of a portrait."""
    span = identity.span
    placed = pose * np.array([1, 1, 1, span, span, 1], np.float32)
    placed[:, 5] = np.log(pose[:, 5])
    faces = [turn_head(identity.neutral, depth, row) for row in placed]
    usual = np.median(faces, 0).astype(np.float32)
    shifts = [head_shift(usual, face)[1:3] * _SCALE for face in faces]
    return np.concatenate([np.degrees(pose[:, :3]), shifts], 1).astype(np.float32)


class Bench:
    """What reads filmed heads, and what moves and draws ours."""

    def __init__(self, config: EngineConfig, label: Labeller | None) -> None:
        self._config = config
        backend = load_backend(config.backend, threads=config.threads)
        self._reader, self._label = own_reader(config), label
        self._depth = FaceBasis.load(config.weights / "basis.npz").depth
        self._networks = load_motion(config, config.threads)
        self._enroller = AvatarEngine.load(config, backend)

    def read(self, frames: Iterable[RgbImage]) -> F32:
        """Pose (T, 5) in the order of `AXES` in frames (H, W, 3), shifts from the median face."""
        return follow(frames, self._reader, self._label).head

    def energy(self, pcm: F32) -> F32:
        """How strongly each frame of a sound (N,) is spoken: (T,)."""
        encoder, decoder = self._networks
        return run(encoder, decoder, pcm).energy

    def driven(self, film: Path, seeds: int, *, drawn: bool) -> dict[str, list[HeadFigures]]:
        """Figures of the speaker of `film`, and of the product with his sound, one for each seed."""
        pcm, energy = read_audio(film), self.energy(read_audio(film))
        first = next(frames_at(film))
        filmed = self.read(frames_at(film))
        length = min(len(filmed), len(energy))
        figures = {"filmed": [head_figures(filmed[:length], energy[:length])]}
        identity = self._enroller.enroll(first)
        for name, calm in (("calm", True), ("moving", False)):
            lives = [IdleLife(seed, calm=calm) for seed in range(seeds)]
            poses = [life.step(life.start(), len(energy), energy)[0] for life in lives]
            tracks = [asked(pose, identity, self._depth) for pose in poses]
            figures[f"{name}, asked"] = [head_figures(track, energy) for track in tracks]
            if drawn:
                engine = AvatarEngine.load(dataclasses.replace(self._config, calm=calm))
                shown = (frame.rgb for frame in frames_of(engine, identity, pcm))
                track = self.read(shown)
                figures[f"{name}, drawn"] = [head_figures(track, energy[: len(track)])]
        return figures


def mean(figures: Sequence[HeadFigures]) -> dict[str, Any]:
    """The figures of several seeds as one, for JSON."""

    def middle(values: Iterable[float], digits: int = 2) -> float:
        return round(float(np.mean(list(values))), digits)

    told: dict[str, Any] = {
        axis: {name: middle(f.moved[axis][name] for f in figures) for name in FIGURES}
        for axis in AXES
    }
    told["moving"] = middle(f.moving for f in figures)
    told["largest step"] = middle(f.largest_step for f in figures)
    told["pitch with phrase: r, lag"] = [
        middle(p) for p in zip(*(f.phrase for f in figures), strict=True)
    ]
    told["nod after stress: r, lag"] = [
        middle(p) for p in zip(*(f.stress for f in figures), strict=True)
    ]
    return told


def table(title: str, columns: dict[str, dict[str, Any]]) -> Table:
    """One row a figure; beside each of ours its ratio to the filmed one."""
    made = Table("", *columns, title=title)
    real = columns["filmed"]
    for axis in AXES:
        for name in FIGURES:
            cells = [f"{c[axis][name]:.1f}" for c in columns.values()]
            for i, column in enumerate(list(columns.values())[1:], 1):
                cells[i] += f" (x {column[axis][name] / real[axis][name]:.2f})"
            made.add_row(f"{axis} {name}", *cells)
    for name in list(real)[len(AXES) :]:
        made.add_row(name, *(str(c[name]) for c in columns.values()))
    return made


def main(
    files: Annotated[list[Path], typer.Argument(help="films of one speaker, 25 fps, with sound")],
    landmarker: Annotated[
        Path | None, typer.Option(help="face_landmarker.task: reads the heads in place of our net")
    ] = None,
    seeds: Annotated[int, typer.Option(help="seeds to take the mean of")] = 8,
    drawn: Annotated[
        bool, typer.Option("--drawn", help="also draw the frames and read them")
    ] = False,
    threads: Annotated[int, typer.Option(help="CPU threads of one graph")] = 1,
) -> None:
    """Print a table for each film and one JSON line."""
    label = Labeller(landmarker) if landmarker is not None else None
    bench = Bench(EngineConfig(threads=threads), label)
    console, report = Console(width=160), {}
    for film in files:
        figures = bench.driven(film, seeds, drawn=drawn)
        columns = {name: mean(rows) for name, rows in figures.items()}
        console.print(table(film.name, columns))
        report[film.name] = columns
    told = {"read by": "own net" if label is None else "public landmarker", "seeds": seeds}
    typer.echo(json.dumps(told | {"films": report}))


if __name__ == "__main__":
    typer.run(main)
