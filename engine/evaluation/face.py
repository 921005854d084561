"""Measures the face detector and the landmark net: `python -m engine.evaluation.face --help`.

Landmarks are compared with the labelling tool's on real portraits, as the mean distance over the
distance of the pupils. The tool's own consistency (its answer for a crop against its answer for
the whole image) stands beside, as a floor of that error. Ends in one JSON line.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from engine.backends import load_backend
from engine.errors import PortraitRefused
from engine.face import topology
from engine.face.candidates import FaceCrop
from engine.face.detector import DETECTOR, LANDMARKS, MIN_FACE_PX, FaceReader, face_box
from engine.training.data.labeller import FaceLabel, Labeller
from engine.training.face.dataset import HELD_OUT_EVERY, STILL_PERSON, head_angles

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

GROUPS: dict[str, list[int]] = {
    "all": list(range(topology.POINTS)),
    "lips": sorted({p for row in topology.LIP_ROWS for p in row}),
    "eyelids": sorted({*topology.RIGHT_EYE, *topology.LEFT_EYE}),
    "irises": sorted({*topology.RIGHT_IRIS, *topology.LEFT_IRIS}),
    "oval": sorted(set(topology.OVAL)),
}


def pixels(label: FaceLabel, rgb: U8) -> F32:
    """The labelling tool's landmarks (478, 2) in pixels of `rgb`."""
    height, width = rgb.shape[:2]
    return label.landmarks[:, :2] * np.array([width, height], np.float32)


def errors(found: F32, wanted: F32) -> dict[str, float]:
    """Mean distance of two sets of landmarks (478, 2), by group of points.

    In percent of the distance of the pupils in `wanted`.
    """
    distance = np.linalg.norm(found - wanted, axis=1)
    unit = np.linalg.norm(wanted[topology.RIGHT_IRIS[0]] - wanted[topology.LEFT_IRIS[0]])
    return {name: float(distance[rows].mean() / unit * 100) for name, rows in GROUPS.items()}


def own_error(label: Labeller, rgb: U8, wanted: F32) -> dict[str, float] | None:
    """`errors` of the labelling tool against itself, from a crop around the face.

    Args:
        rgb: the image (H, W, 3).
        wanted: what the tool found in it, landmarks (478, 2) in pixels.

    Returns:
        None when the tool finds no face in the crop.
    """
    left, top, right, bottom = face_box(wanted)
    side = max(right - left, bottom - top) * 2.2
    crop = FaceCrop((left + right) / 2, (top + bottom) / 2, side)
    again = label(crop.cut(Image.fromarray(rgb), 512))
    return None if again is None else errors(crop.place(again.landmarks[:, :2]), wanted)


def outcome(reader: FaceReader, rgb: U8, number: int | None = None) -> str:
    """ "read" when the reader accepts face `number` of `rgb` (H, W, 3), else the code of its refusal."""
    try:
        reader.read(rgb, number)
    except PortraitRefused as refusal:
        return refusal.code
    return "read"


def read_images(paths: Iterable[Path]) -> Iterator[tuple[str, U8]]:
    """Name and RGB (H, W, 3) of each image file; other files are passed over."""
    for path in paths:
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            yield path.name, np.asarray(Image.open(path).convert("RGB"))


def without_face(objects: list[U8], count: int) -> Iterator[U8]:
    """Images (h, w, 3) without a face: `count` squares cut from `objects` (H, W, 3), four drawn."""
    rng = np.random.default_rng(5)
    for i in range(count):
        source = objects[i % len(objects)]
        side = int(min(source.shape[:2]) * (1.0 if i < len(objects) else rng.uniform(0.3, 0.9)))
        y = int(rng.integers(source.shape[0] - side + 1))
        x = int(rng.integers(source.shape[1] - side + 1))
        yield source[y : y + side, x : x + side]
    yield rng.integers(0, 256, (300, 400, 3), np.uint8)
    yield np.full((300, 400, 3), 128, np.uint8)
    yield np.repeat(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], 300, 0).repeat(3, 2)
    page = Image.new("RGB", (400, 300), "white")
    ImageDraw.Draw(page).text((20, 20), "a page of letters\n" * 12, fill="black")
    yield np.asarray(page)


def side_by_side(a: U8, b: U8) -> U8:
    """Images (H, W, 3) side by side (h, W1 + W2, 3), both cut to the lower height."""
    height = min(len(a), len(b))
    return np.hstack([a[:height], b[:height]])


def shrunk(rgb: U8, factor: float) -> U8:
    """A copy of `rgb` (H, W, 3) whose sides are `factor` times as long."""
    size = (round(rgb.shape[1] * factor), round(rgb.shape[0] * factor))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def measure_portraits(
    reader: FaceReader, label: Labeller, portraits: list[tuple[str, U8]], sheet: Path | None
) -> dict[str, float]:
    """Landmark error, score error, yaw error and time on real portraits.

    Args:
        portraits: name and RGB (H, W, 3) of each.
        sheet: where to write the portraits with their landmarks drawn.
    """
    ours: list[dict[str, float]] = []
    teacher: list[dict[str, float]] = []
    more: list[tuple[float, float, float]] = []
    drawn: list[Image.Image] = []
    for _, rgb in portraits:
        wanted = label(rgb)
        start = time.perf_counter()
        faces = reader.faces(rgb)
        seconds = time.perf_counter() - start
        if wanted is None or not faces:
            continue
        points = pixels(wanted, rgb)
        ours.append(errors(faces[0].landmarks, points))
        if (again := own_error(label, rgb, points)) is not None:
            teacher.append(again)
        yaw = abs(faces[0].yaw - head_angles(wanted.pose)[0])
        more.append((float(np.abs(faces[0].scores - wanted.scores).mean()), yaw, seconds * 1000))
        drawn.append(_draw(rgb, faces[0].landmarks))
    if sheet is not None:
        _tile(drawn).save(sheet)
    out = {f"nme_{g}": float(np.mean([e[g] for e in ours])) for g in GROUPS}
    out |= {f"worst_{g}": float(np.max([e[g] for e in ours])) for g in GROUPS}
    out |= {f"teacher_{g}": float(np.mean([e[g] for e in teacher])) for g in GROUPS}
    score, yaw, milliseconds = np.median(np.array(more), 0)
    found = len(ours) / len(portraits)
    return out | {
        "found": found,
        "score_error": score,
        "yaw_error_rad": yaw,
        "ms_p50": milliseconds,
    }


def measure_refusals(
    reader: FaceReader, label: Labeller, portraits: list[U8], objects: list[U8], stills: Path | None
) -> dict[str, tuple[int, int]]:
    """Of the images (H, W, 3) of each kind, how many had the right outcome and how many there are."""
    pairs = [side_by_side(a, b) for a, b in itertools.pairwise([*portraits, portraits[0]])]
    things = list(without_face(objects, 120))
    small = [
        shrunk(rgb, (MIN_FACE_PX * part) / face.side)
        for rgb, part in zip(portraits, itertools.cycle((0.5, 0.7, 0.9)))
        for face in reader.faces(rgb)[:1]
    ]
    results = {
        "portrait is read": [outcome(reader, p) == "read" for p in portraits],
        "two faces are counted": [outcome(reader, p, 2) == "read" for p in pairs],
        "no face is refused": [outcome(reader, p) != "read" for p in things],
        "no face is called so": [outcome(reader, p) == "no_face" for p in things],
        "small face is refused": [outcome(reader, p) != "read" for p in small],
    }
    if stills is not None:
        turned, frontal = _stills_by_angle(label, stills)
        results["over 50 degrees is refused"] = [outcome(reader, p) != "read" for p in turned]
        results["under 25 degrees, unseen, is read"] = [
            outcome(reader, p) == "read" for p in frontal
        ]
    return {name: (sum(rows), len(rows)) for name, rows in results.items()}


def _stills_by_angle(label: Labeller, stills: Path) -> tuple[list[U8], list[U8]]:
    """Images turned by over 50 degrees, and frontal ones that no net was trained on."""
    turned, frontal = [], []
    with tarfile.open(stills) as archive:
        members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
        for index, member in enumerate(members):
            file = archive.extractfile(member)
            assert file is not None  # only plain files are asked for
            rgb = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
            found = label(rgb)
            if found is None:
                continue
            yaw = abs(np.degrees(head_angles(found.pose)[0]))
            if yaw > 50:
                turned.append(rgb)
            elif yaw < 25 and (STILL_PERSON + index) % HELD_OUT_EVERY == 0:
                frontal.append(rgb)
    return turned, frontal


def _draw(rgb: U8, landmarks: F32) -> Image.Image:
    """The face with its landmarks, 320 px."""
    left, top, right, bottom = face_box(landmarks)
    side = max(right - left, bottom - top) * 1.3
    crop = FaceCrop((left + right) / 2, (top + bottom) / 2, side)
    image = Image.fromarray(crop.cut(Image.fromarray(rgb), 320))
    draw = ImageDraw.Draw(image)
    points = (landmarks - [crop.x, crop.y]) / side * 320 + 160
    for row in (*topology.LIP_ROWS, topology.OVAL, topology.RIGHT_EYE, topology.LEFT_EYE):
        draw.line([tuple(points[i]) for i in row], fill=(0, 255, 0))
    for x, y in points:
        draw.point((x, y), fill=(255, 255, 0))
    return image


def _tile(tiles: list[Image.Image], columns: int = 6) -> Image.Image:
    whole = Image.new("RGB", (columns * 320, -(-len(tiles) // columns) * 320))
    for i, tile in enumerate(tiles):
        whole.paste(tile, (i % columns * 320, i // columns * 320))
    return whole


def main(
    weights: Annotated[Path, typer.Option(help="folder with detector.onnx and landmarks.onnx")],
    portraits: Annotated[Path, typer.Option(help="folder of real portraits")],
    landmarker: Annotated[Path, typer.Option(help="face_landmarker.task")],
    objects: Annotated[Path, typer.Option(help="folder of images without a face")],
    stills: Annotated[Path | None, typer.Option(help="tar file of single faces")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write the drawn portraits here")] = None,
) -> None:
    """Measure, print a table, end in one JSON line."""
    backend, label = load_backend("openvino", threads=1), Labeller(landmarker)
    reader = FaceReader(
        backend.load(DETECTOR, weights / "detector.onnx"),
        backend.load(LANDMARKS, weights / "landmarks.onnx"),
    )
    real = list(read_images(sorted(portraits.iterdir())))
    things = [rgb for _, rgb in read_images(sorted(objects.iterdir())) if min(rgb.shape[:2]) >= 100]
    landmarks = measure_portraits(reader, label, real, sheet)
    refusals = measure_refusals(reader, label, [rgb for _, rgb in real], things, stills)
    table = Table(
        "points", "error %", "worst portrait", "the tool's own", title=f"{len(real)} portraits"
    )
    for group in GROUPS:
        row = (landmarks[f"{kind}_{group}"] for kind in ("nme", "worst", "teacher"))
        table.add_row(group, *(f"{value:.2f}" for value in row))
    kinds = Table("kind of image", "right", "of")
    for name, (right, total) in refusals.items():
        kinds.add_row(name, str(right), str(total))
    console = Console()
    console.print(table, kinds)
    typer.echo(json.dumps({k: round(v, 4) for k, v in landmarks.items()} | {"refusals": refusals}))


if __name__ == "__main__":
    typer.run(main)
