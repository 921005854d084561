"""Prepared clips of drawn people who talk, so that training can be tried with no video at hand.

`python -m engine.training.data.drawn_clips --out data/drawn` writes 8 clips. The landmarks are real: the
bundled face's shape, moved by the bundled expression basis and turned in 3-D; what is drawn over them
is a cartoon.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.backends import load_backend
from engine.config import WEIGHTS
from engine.face import arkit
from engine.face.head_mask import without_background
from engine.face.landmarks import apply, crop_transform
from engine.face.topology import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LEFT_BROW,
    LEFT_EYE,
    NOSE_RIDGE,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    OVAL,
    RIGHT_BROW,
    RIGHT_EYE,
)
from engine.motion.retarget import FaceBasis, turn_head
from engine.outputs import own_folder
from engine.render.specs import ENROLL
from engine.render.tiny_embedding import TinyEmbedder
from engine.training.data.clips import ClipArrays, ClipCard, Split, write_clip
from engine.training.data.drawn_person import Colour, DrawnPerson
from engine.training.data.face_embedding import FaceEmbedder
from engine.types import RgbImage

F32 = NDArray[np.float32]
BUNDLED = TinyEmbedder.name
FINE = 4  # times finer than asked for while drawing
EYES = 1.9  # times larger than life, or 64 pixels do not show them
LIGHT = 30.0  # of 255, how far the light of the wall drifts
_MOUTH = (*OUTER_UPPER_LIP, *OUTER_LOWER_LIP[::-1])
_INSIDE = (*INNER_UPPER_LIP, *INNER_LOWER_LIP[::-1])


def neutral_shape() -> F32:
    """The bundled portrait's landmarks (478, 2) in crop units, and upright."""
    from engine.face.detector import DETECTOR, LANDMARKS, FaceReader

    portrait = Path(__file__).parents[3] / "server" / "data" / "astronaut.png"
    runtime = load_backend("openvino", threads=1)
    detector, net = (
        runtime.load(s, WEIGHTS / "tiny" / f"{s.name}.onnx") for s in (DETECTOR, LANDMARKS)
    )
    rgb = np.asarray(Image.open(portrait).convert("RGB"))
    points = FaceReader(detector, net).read(rgb).face.landmarks
    return apply(crop_transform(points), points)


def waves(rng: np.random.Generator, frames: int, least_hz: float, count: int) -> F32:
    """Sines (T, count) of frequencies from `least_hz` to twice as much, phases at random."""
    time = np.arange(frames)[:, None] / 25
    turns = time * rng.uniform(least_hz, 2 * least_hz, count) + rng.random(count)
    return np.sin(2 * np.pi * turns).astype(np.float32)


def talk(frames: int, seed: int) -> tuple[F32, F32]:
    """Coefficients (T, 52) of a mouth that talks, and head poses (T, 6)."""
    rng = np.random.default_rng(seed + 1000)
    mouth, sway = waves(rng, frames, 1.6, 3), waves(rng, frames, 0.8, 6)
    face = np.zeros((frames, arkit.COUNT), np.float32)
    face[:, arkit.index("jawOpen")] = (0.4 + 0.5 * mouth[:, 0]).clip(0, 0.9)
    face[:, arkit.index("mouthFunnel")] = (0.4 * mouth[:, 1]).clip(0)
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        face[:, arkit.index(name)] = (0.5 * mouth[:, 2]).clip(0)
    size = np.array([0.25, 0.12, 0.12, 0.3, 0.15, 0.1], np.float32)
    return face, sway * size


def walls(person: DrawnPerson, frames: int, seed: int, light: float = LIGHT) -> list[Colour]:
    """Colours of the wall: its light drifts so far. No landmark tells it, the frame before does."""
    drift = waves(np.random.default_rng(seed + 2000), frames, 0.6, 3)
    colours = (np.array(person.wall) + light * drift).round().clip(0, 255).astype(int)
    return [(int(r), int(g), int(b)) for r, g, b in colours]


def landmarks_of(person: DrawnPerson, shape: F32, basis: FaceBasis, face: F32, pose: F32) -> F32:
    """Landmarks (478, 2) in [0, 1] of the frame: one frame's coefficients (52,), pose (6,)."""
    moved = turn_head(shape + basis.move(face), basis.depth, pose)
    middle = np.array([0.5, 0.2], np.float32)
    stretch = 0.4 * np.array(person.stretch, np.float32)
    placed: F32 = (moved - middle) * stretch + np.array([0.5, 0.44], np.float32)
    return placed.astype(np.float32)


def paint(person: DrawnPerson, points: F32, size: int, wall: Colour) -> RgbImage:
    """The cartoon (size, size, 3) over landmarks (478, 2) in [0, 1], before a wall."""
    fine = size * FINE
    canvas = Image.new("RGB", (fine, fine), wall)
    draw = ImageDraw.Draw(canvas)

    def at(
        rows: tuple[int, ...], grow: float = 1.0, lift: float = 0.0
    ) -> list[tuple[float, float]]:
        chosen = points[list(rows)]
        middle = chosen.mean(0)
        moved = (middle + (chosen - middle) * grow + [0, -lift]) * fine
        return [(float(x), float(y)) for x, y in moved]

    chin_x, chin_y = points[152] * fine
    draw.ellipse((chin_x - 0.42 * fine, chin_y - 0.02 * fine, chin_x + 0.42 * fine, 2 * fine),
                 fill=person.coat)  # fmt: skip
    draw.polygon(at(OVAL, 1.22, 0.05), fill=person.hair)
    draw.polygon(at(OVAL), fill=person.skin)
    for eye, pupil in ((RIGHT_EYE, 468), (LEFT_EYE, 473)):
        draw.polygon(at(eye, EYES), fill=(245, 245, 240))
        x, y = points[pupil] * fine
        r = 0.022 * fine
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(25, 25, 30))
    for brow in (RIGHT_BROW, LEFT_BROW):
        draw.line(at(brow), fill=person.hair, width=fine // 28)
    shade = tuple(int(v * 0.75) for v in person.skin)
    draw.line(at(NOSE_RIDGE), fill=shade, width=fine // 60)
    draw.polygon(at(_MOUTH), fill=person.lips)
    draw.polygon(at(_INSIDE), fill=(50, 15, 20))
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX))


def bundled_embedder() -> FaceEmbedder:
    """The face encoder in the package."""
    runtime = load_backend("openvino", threads=1)
    return TinyEmbedder(runtime.load(ENROLL, WEIGHTS / "tiny" / f"{ENROLL.name}.onnx"))


def write_drawn_clips(
    out: Path,
    *,
    people: int = 8,
    frames: int = 12,
    size: int = 64,
    takes: int = 1,
    light: float = LIGHT,
    embed: FaceEmbedder | None = None,
) -> list[str]:
    """Write clips below `out` / clips; their names.

    Args:
        takes: clips a person, each with other words, other moves and other light. Of several, the
            last is held out: who is in it is known, what the light does only the frames before tell.
        light: of 255, how far that of the wall drifts.
        embed: makes the embeddings of the drawn faces. Without it each person has numbers of its own,
            which tell people apart better than any encoder, but which no portrait leads to.
    """
    own_folder(out, earlier=any(out.glob("clips/*/clip.json")))
    pen = Pen.load(size, light)
    names = []
    for number in range(people * takes):
        person, take = DrawnPerson.draw(number % people), number // people
        name = person.name if takes == 1 else f"{person.name}_{take}"
        split: Split = "test" if 0 < take == takes - 1 else "train"
        write_drawn_clip(out / "clips" / name, person, pen, number, frames, split, embed)
        names.append(name)
    return names


@dataclass(frozen=True, slots=True)
class Pen:
    """What drawing takes beside a person: the face's shape and how it moves, size and light."""

    shape: F32  # (478, 2) in crop units, upright
    basis: FaceBasis
    size: int  # pixels a side
    light: float = LIGHT

    @classmethod
    def load(cls, size: int, light: float = LIGHT) -> Pen:
        """With the bundled face."""
        return cls(neutral_shape(), FaceBasis.load(WEIGHTS / "tiny" / "basis.npz"), size, light)


def write_drawn_clip(
    folder: Path,
    person: DrawnPerson,
    pen: Pen,
    seed: int,
    frames: int,
    split: Split,
    embed: FaceEmbedder | None,
) -> None:
    """Write one clip: `seed` says how the person talks and moves, and what the light does."""
    faces, poses = talk(frames, seed)
    moves = zip(faces, poses, strict=True)
    points = np.stack([landmarks_of(person, pen.shape, pen.basis, f, p) for f, p in moves])
    card = ClipCard(
        video="drawn",
        person=person.name,
        split=split,
        frames=frames,
        size=pen.size,
        face_encoder="drawn" if embed is None else embed.name,
    )
    shown = np.arange(0, frames, max(1, frames // 4), dtype=np.int64)
    lit = zip(points, walls(person, frames, seed, pen.light), strict=True)
    images = [paint(person, row, pen.size, wall) for row, wall in lit]
    arrays = ClipArrays(
        points,
        poses[:, :2],
        np.zeros((frames, 52), np.float32),
        np.ones(frames, np.float32),
        shown,
        _embeddings(person, shown, images, points, embed),
        None,
        None,
    )
    write_clip(folder, card, arrays, images)


def _embeddings(
    person: DrawnPerson,
    shown: NDArray[np.int64],
    images: list[RgbImage],
    points: F32,
    embed: FaceEmbedder | None,
) -> F32:
    """Embeddings (K, E) of the frames `shown`."""
    if embed is None:
        return np.repeat(person.embedding[None], len(shown), 0)
    rows = [
        embed(without_background(images[i], points[i]), points[i] * len(images[i])) for i in shown
    ]
    return np.stack(rows)


def main() -> None:
    """Write drawn clips."""
    parser = argparse.ArgumentParser(description="Write prepared clips of drawn people who talk.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--takes", type=int, default=1, help="clips a person, the last held out")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument(
        "--light", type=float, default=LIGHT, help="how far the wall's drifts, of 255"
    )
    parser.add_argument(
        "--face-encoder",
        choices=("drawn", BUNDLED),
        default="drawn",
        help="whose embeddings: drawn, numbers of each person's own, which a portrait cannot be drawn "
        "with later; tiny, the encoder in the package",
    )
    args = parser.parse_args()
    write_drawn_clips(
        args.out,
        people=args.people,
        frames=args.frames,
        size=args.size,
        takes=args.takes,
        light=args.light,
        embed=bundled_embedder() if args.face_encoder == BUNDLED else None,
    )


if __name__ == "__main__":
    main()
