"""A set of drawn people who talk: `python -m engine.evaluation.drawn_set --out data/drawn_set`.

Nothing has to be brought or asked for. Their sound is a hum as loud as their mouths are open: it says when
they speak, not what.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from engine.config import FPS, HOP_SAMPLES, SAMPLE_RATE_HZ, WEIGHTS
from engine.evaluation.lossless import write_lossless
from engine.evaluation.sets import MANIFEST
from engine.face import arkit
from engine.motion.retarget import FaceBasis
from engine.outputs import own_folder
from engine.training.data.drawn_clips import (
    landmarks_of,
    neutral_shape,
    paint,
    talk,
    walls,
)
from engine.training.data.drawn_person import DrawnPerson
from engine.types import Pcm, RgbImage

FIRST = 100  # seed of the first person: nobody of them is trained on
SWAY = 0.4  # of the pose that training clips have: a film is no fairground


def hum(opening: NDArray[np.float32]) -> Pcm:
    """Sound (640 T,) of a voice whose mouth is open by (T,), in [0, 1]."""
    t = np.arange(len(opening) * HOP_SAMPLES) / SAMPLE_RATE_HZ
    tone = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 12))
    loud = np.interp(t * FPS, np.arange(len(opening)), opening)
    return (0.15 * loud * tone).astype(np.float32)


def write_drawn_set(out: Path, *, people: int, seconds: float, size: int = 256) -> Path:
    """Write a film a person and the manifest; returns the manifest.

    Raises:
        ConfigError: `out` holds files of somebody else.
    """
    own_folder(out)
    shape, basis = neutral_shape(), FaceBasis.load(WEIGHTS / "tiny" / "basis.npz")
    count = round(seconds * FPS)
    rows = ['name = "drawn people"', 'licence = "made by this program: free to use"']
    for seed in range(FIRST, FIRST + people):
        person = DrawnPerson.draw(seed)
        faces, poses = talk(count, seed)
        opening = faces[:, arkit.index("jawOpen")]

        def frames(
            person: DrawnPerson = person,
            faces: NDArray[np.float32] = faces,
            poses: NDArray[np.float32] = poses,
            seed: int = seed,
        ) -> Iterator[RgbImage]:
            rows = zip(faces, SWAY * poses, walls(person, count, seed), strict=True)
            for face, pose, wall in rows:
                yield paint(person, landmarks_of(person, shape, basis, face, pose), size, wall)

        write_lossless(frames(), hum(opening), out / f"{person.name}.mkv")
        rows.append(f'\n[[clips]]\nname = "{person.name}"\nreal = "{person.name}.mkv"')
    manifest = out / MANIFEST
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def main(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    people: Annotated[int, typer.Option(help="Films.")] = 4,
    seconds: Annotated[float, typer.Option(help="Length of each.")] = 4.0,
) -> None:
    """Write a set of drawn people for `portraittalk evaluate --set`."""
    typer.echo(str(write_drawn_set(out, people=people, seconds=seconds)))


if __name__ == "__main__":
    typer.run(main)
