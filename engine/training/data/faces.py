"""Made-up people with labelled expressions: the pairs that the painter and landmark net learn from.

`python -m engine.training.data.faces --help`. A public face generator (MobileStyleGAN) draws a
person; moving its latent `w` along directions fitted on labelled samples opens the same person's
mouth, rounds the lips, closes the eyes. Every image is labelled after the edit, so labels
do not depend on how well the edit worked.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine.outputs import own_folder
from engine.training.data.expressions import (
    EDITS,
    STRENGTH,
    Directions,
    Drawing,
    fit_directions,
    person_styles,
)
from engine.training.data.face_generator import FaceGenerator
from engine.training.data.labeller import FaceLabel, Labeller

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
CHUNK_PEOPLE = 20  # people per label file: the unit of resuming


def generate(out: Path, drawing: Drawing, *, cache: Path, landmarker: Path) -> None:
    """Write the labelled images of `drawing` under `out`; finished chunks are skipped.

    Writes `directions.npz` once, then a `chunk_NNNN.npz` with arrays `bytes` (JPEGs one after
    another) and `offsets` (N + 1,), `person` (N,), `landmarks` (N, 478, 3), `scores` (N, 52),
    `names` (52,) and `pose` (N, 4, 4).
    """
    own_folder(out, earlier=(out / "directions.npz").exists())
    label, generator = Labeller(landmarker), FaceGenerator(cache)
    directions = _load_or_fit(out / "directions.npz", generator, label)
    chunks = [
        range(a, min(a + CHUNK_PEOPLE, drawing.people))
        for a in range(0, drawing.people, CHUNK_PEOPLE)
    ]
    for number, members in enumerate(
        tqdm(chunks, desc="drawing faces", unit=f"x{CHUNK_PEOPLE} people")
    ):
        target = out / f"chunk_{number:04d}.npz"
        if not target.exists():
            styles = ((p, person_styles(generator, directions, p, drawing)) for p in members)
            _write_chunk(target, _labelled(generator, label, styles), label)


def _load_or_fit(path: Path, generator: FaceGenerator, label: Labeller) -> Directions:
    if not path.exists():
        directions, held_out = fit_directions(generator, label)
        arrays: dict[str, Any] = {"mean": directions.mean, "std": directions.std}
        arrays |= directions.edits
        np.savez(path, **arrays)
        tqdm.write(
            "held-out correlation of the edits: "
            + str({k: round(v, 2) for k, v in held_out.items()})
        )
    with np.load(path) as saved:
        return Directions(saved["mean"], saved["std"], {name: saved[name] for name in EDITS})


def _labelled(
    generator: FaceGenerator, label: Labeller, people: Iterable[tuple[int, list[F32]]]
) -> Iterator[tuple[int, U8, FaceLabel]]:
    for person, styles in people:
        for image in generator.draw(styles):
            if (found := label(image)) is not None:
                yield person, image, found


def _write_chunk(target: Path, rows: Iterable[tuple[int, U8, FaceLabel]], label: Labeller) -> None:
    people, blobs, labels = [], [], []
    for person, image, found in rows:
        ok, blob = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
        assert ok
        people.append(person)
        blobs.append(blob)
        labels.append(found)
    partial = target.with_suffix(".part.npz")
    np.savez(
        partial,
        person=np.array(people),
        bytes=np.concatenate(blobs),
        offsets=np.cumsum([0, *(len(b) for b in blobs)]),
        landmarks=np.stack([f.landmarks for f in labels]),
        scores=np.stack([f.scores for f in labels]),
        pose=np.stack([f.pose for f in labels]),
        names=np.array(label.names),  # it knows them once it has labelled
    )
    partial.rename(target)


def contact_sheet(folder: Path, path: Path, people: int = 12, tile: int = 160) -> None:
    """Draw the first people of a data folder, a person a row, landmarks in green."""
    rows = []
    with np.load(sorted(folder.glob("chunk_????.npz"))[0]) as saved:
        for person in np.unique(saved["person"])[:people]:
            tiles = []
            for index in np.flatnonzero(saved["person"] == person):
                blob = saved["bytes"][saved["offsets"][index] : saved["offsets"][index + 1]]
                whole: Any = cv2.imdecode(blob, cv2.IMREAD_COLOR)
                shown = cv2.resize(whole, (tile, tile))
                for x, y in saved["landmarks"][index, ::3, :2] * tile:
                    cv2.circle(shown, (int(x), int(y)), 0, (0, 255, 0), -1)
                tiles.append(shown)
            rows.append(np.concatenate(tiles, 1))
    width = max(row.shape[1] for row in rows)
    sheet = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    cv2.imwrite(str(path), np.concatenate(sheet))


def main() -> None:
    """Draw, label and write the faces; a second run goes on where the first one stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the chunks")
    parser.add_argument("--landmarker", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/cache"), help="folder of downloaded packages"
    )
    parser.add_argument("--people", type=int, default=640)
    parser.add_argument("--edits", type=int, default=6, help="images of each person")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--strength", type=float, default=STRENGTH, help="strength of the edits")
    args = parser.parse_args()
    drawing = Drawing(people=args.people, edits=args.edits, seed=args.seed, strength=args.strength)
    generate(args.out, drawing, cache=args.cache, landmarker=args.landmarker)
    contact_sheet(args.out, args.out / "sheet.png")


if __name__ == "__main__":
    main()
