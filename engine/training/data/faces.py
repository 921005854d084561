"""Made-up people with labelled expressions: the pairs that the renderer and landmark net learn from.

A public face generator (MobileStyleGAN, see `sources.py`) draws a person; moving its latent `w`
along directions fitted on labelled samples opens the same person's mouth, rounds the lips, closes
the eyes. Every picture is labelled anew after the edit, so labels never trust the edit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tqdm import tqdm

from engine.errors import DataError
from engine.loaders.packages import fetch
from engine.outputs import own_folder

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

SIZE = 512  # pixels of a stored picture; the generator draws 1024
CHUNK_PEOPLE = 20  # people per label file: the unit of resuming

# Range of each edit, in standard deviations of the fitted label.
EDITS: dict[str, tuple[float, float]] = {
    "gap": (-5, 5),
    "width": (-4, 4),
    "jaw": (-3, 5),
    "pucker": (-2, 5),
    "yaw": (-1.5, 1.5),
    "blink": (-2, 4),
    "brow": (-2, 3),
    "smile": (-4, 1),
}
STRENGTH = 0.8  # of the edits; from about 1.5 on people change with their mouths
MOUTH_EDITS = ("gap", "width", "jaw", "pucker", "smile")


@dataclass(frozen=True, slots=True)
class FaceLabel:
    """What the labelling tool says of one face."""

    landmarks: F32  # (478, 3), x and y in picture units [0, 1]
    scores: F32  # (52,) ARKit-style coefficients
    pose: F32  # (4, 4) head to camera


class Labeller:
    """The public landmarker that labels training pictures (MediaPipe, an extra, never at run time).

    Args:
        model: path of `face_landmarker.task`.
    """

    def __init__(self, model: Path) -> None:
        try:
            import mediapipe as mp
            from mediapipe.tasks import python as tasks
            from mediapipe.tasks.python import vision
        except ImportError as error:
            raise DataError(
                "labelling needs mediapipe: pip install 'portraittalk[label]'"
            ) from error
        options = vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(model)),
            num_faces=1,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        self._tool = vision.FaceLandmarker.create_from_options(options)
        self._image: Callable[[U8], object] = lambda rgb: mp.Image(
            image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)
        )
        self.names: tuple[str, ...] = ()

    def __call__(self, rgb: U8) -> FaceLabel | None:
        """Label the clearest face of `rgb` (H, W, 3), or None when there is none."""
        found = self._tool.detect(self._image(rgb))
        if not found.face_landmarks:
            return None
        self.names = tuple(s.category_name for s in found.face_blendshapes[0])
        return FaceLabel(
            np.array([[p.x, p.y, p.z] for p in found.face_landmarks[0]], np.float32),
            np.array([s.score for s in found.face_blendshapes[0]], np.float32),
            np.array(found.facial_transformation_matrixes[0], np.float32),
        )


class FaceGenerator:
    """MobileStyleGAN as two compiled graphs: noise -> w (512) -> picture."""

    def __init__(self, cache: Path) -> None:
        files = {
            part: fetch(f"stylegan-{part}", cache)[0]
            for part in ("mapping-xml", "mapping-bin", "synthesis-xml", "synthesis-bin")
        }
        core = ov.Core()
        self._map = core.compile_model(
            core.read_model(files["mapping-xml"], files["mapping-bin"]), "CPU"
        )
        self._draw = core.compile_model(
            core.read_model(files["synthesis-xml"], files["synthesis-bin"]),
            "CPU",
            {"PERFORMANCE_HINT": "LATENCY"},
        )

    def map(self, noise: F32) -> F32:
        """Standard normal `noise` (N, 512) -> style vectors (N, 512)."""
        return np.concatenate([self._map(row[None])[0] for row in noise]).astype(np.float32)

    def draw(self, styles: Sequence[F32]) -> list[U8]:
        """Draw one picture (512, 512, 3) a style vector, two requests in flight."""
        pictures: dict[int, U8] = {}

        def keep(request: ov.InferRequest, index: int) -> None:
            rgb = request.get_output_tensor(0).data[0].transpose(1, 2, 0)
            full = (np.clip(rgb / 2 + 0.5, 0, 1) * 255).astype(np.uint8)
            pictures[index] = cv2.resize(full, (SIZE, SIZE), interpolation=cv2.INTER_AREA)

        queue = ov.AsyncInferQueue(self._draw, 2)
        queue.set_callback(keep)
        for index, style in enumerate(styles):
            queue.start_async({0: style[None].astype(np.float32)}, index)
        queue.wait_all()
        return [pictures[i] for i in range(len(styles))]


@dataclass(frozen=True, slots=True)
class Directions:
    """Unit directions in standardised w that change one label each."""

    mean: F32  # (512,)
    std: F32  # (512,)
    edits: dict[str, F32]  # name -> (512,)


def lip_gap(landmarks: F32) -> float:
    """Inner lip gap over face height, landmarks 13-14 over 10-152."""
    gap = np.linalg.norm(landmarks[13, :2] - landmarks[14, :2])
    return float(gap / np.linalg.norm(landmarks[10, :2] - landmarks[152, :2]))


def _targets(labels: Sequence[FaceLabel], names: Sequence[str]) -> dict[str, F32]:
    scores = np.stack([label.scores for label in labels])

    def score(name: str) -> F32:
        column: F32 = scores[:, names.index(name)]
        return column

    points = np.stack([label.landmarks for label in labels])
    height = np.linalg.norm(points[:, 10, :2] - points[:, 152, :2], axis=1)
    return {
        "gap": np.log(np.array([lip_gap(p) for p in points]) + 0.02),
        "width": np.linalg.norm(points[:, 61, :2] - points[:, 291, :2], axis=1) / height,
        "jaw": np.log(score("jawOpen") + 0.01),
        "pucker": score("mouthPucker") + score("mouthFunnel"),
        "yaw": np.array(
            [np.arctan2(-p.pose[2, 0], np.hypot(p.pose[0, 0], p.pose[1, 0])) for p in labels]
        ),
        "blink": score("eyeBlinkLeft") + score("eyeBlinkRight"),
        "brow": score("browInnerUp"),
        "smile": score("mouthSmileLeft") + score("mouthSmileRight"),
    }


def fit_directions(
    generator: FaceGenerator, label: Labeller, samples: int = 600, ridge: float = 80.0
) -> tuple[Directions, dict[str, float]]:
    """Ridge-regress each label on w over `samples` faces.

    Returns:
        the directions and the held-out correlation of each (a fifth of the samples).
    """
    rng = np.random.RandomState(1)
    mapped = generator.map(rng.randn(3000, 512).astype(np.float32))
    mean, std = mapped.mean(0), mapped.std(0)
    styles = mean + 0.9 * (mapped[:samples] - mean)
    kept: list[F32] = []
    labels: list[FaceLabel] = []
    for start in tqdm(range(0, samples, 50), desc="fitting edit directions", unit="x50"):
        batch = styles[start : start + 50]
        for style, picture in zip(batch, generator.draw(list(batch)), strict=True):
            if (found := label(picture)) is not None:
                kept.append(style)
                labels.append(found)
    x = np.c_[(np.stack(kept) - mean) / std, np.ones(len(kept))]
    split = len(x) * 4 // 5

    def solve(rows: F32, y: F32) -> F32:
        return np.linalg.solve(rows.T @ rows + ridge * np.eye(rows.shape[1]), rows.T @ y)

    edits: dict[str, F32] = {}
    held_out: dict[str, float] = {}
    for name, y in _targets(labels, label.names).items():
        direction = solve(x, y)[:-1]
        edits[name] = (direction / np.linalg.norm(direction)).astype(np.float32)
        held_out[name] = float(
            np.corrcoef(x[split:] @ solve(x[:split], y[:split]), y[split:])[0, 1]
        )
    return Directions(mean, std, edits), held_out


def person_styles(
    generator: FaceGenerator,
    directions: Directions,
    person: int,
    edits: int,
    seed: int,
    strength: float = STRENGTH,
) -> list[F32]:
    """Style vectors of one person: the plain one and `edits - 1` expressions of some strength."""
    rng = np.random.RandomState([seed, person])
    style = generator.map(rng.randn(1, 512).astype(np.float32))[0]
    base = directions.mean + 0.75 * (style - directions.mean)
    styles = [base]
    for _ in range(edits - 1):
        names = set(rng.choice(MOUTH_EDITS, size=rng.randint(1, 4), replace=False))
        names |= set(rng.choice(list(EDITS), size=rng.randint(0, 3), replace=False))
        move = sum(rng.uniform(*EDITS[n]) * directions.edits[n] for n in sorted(names))
        styles.append(base + strength * move * directions.std)
    return [s.astype(np.float32) for s in styles]


def generate(
    out: Path,
    people: int,
    edits: int,
    seed: int,
    *,
    cache: Path,
    landmarker: Path,
    strength: float = STRENGTH,
) -> None:
    """Write `people` x `edits` labelled pictures under `out`; finished chunks are skipped.

    Writes `directions.npz` once, then a `chunk_NNNN.npz` with arrays `jpeg` (object free: flat
    bytes and offsets), `person`, `landmarks` (N, 478, 3), `scores` (N, 52), `pose` (N, 4, 4).
    """
    own_folder(out, earlier=(out / "directions.npz").exists())
    label, generator = Labeller(landmarker), FaceGenerator(cache)
    directions = _load_or_fit(out / "directions.npz", generator, label)
    chunks = [range(a, min(a + CHUNK_PEOPLE, people)) for a in range(0, people, CHUNK_PEOPLE)]
    for number, members in enumerate(
        tqdm(chunks, desc="drawing faces", unit=f"x{CHUNK_PEOPLE} people")
    ):
        target = out / f"chunk_{number:04d}.npz"
        if not target.exists():
            _write_chunk(
                target,
                _draw_people(generator, directions, label, members, edits, seed, strength),
                label.names,
            )


def _load_or_fit(path: Path, generator: FaceGenerator, label: Labeller) -> Directions:
    if not path.exists():
        directions, held_out = fit_directions(generator, label)
        arrays: dict[str, Any] = {
            "mean": directions.mean,
            "std": directions.std,
            **directions.edits,
        }
        np.savez(path, **arrays)
        tqdm.write(
            "held-out correlation of the edits: "
            + str({k: round(v, 2) for k, v in held_out.items()})
        )
    with np.load(path) as saved:
        return Directions(saved["mean"], saved["std"], {name: saved[name] for name in EDITS})


def _draw_people(
    generator: FaceGenerator,
    directions: Directions,
    label: Labeller,
    members: Iterable[int],
    edits: int,
    seed: int,
    strength: float,
) -> Iterator[tuple[int, U8, FaceLabel]]:
    for person in members:
        styles = person_styles(generator, directions, person, edits, seed, strength)
        for picture in generator.draw(styles):
            if (found := label(picture)) is not None:
                yield person, picture, found


def _write_chunk(
    target: Path, rows: Iterable[tuple[int, U8, FaceLabel]], names: Sequence[str]
) -> None:
    people, blobs, labels = [], [], []
    for person, picture, found in rows:
        ok, blob = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
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
        names=np.array(names),
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
                picture = cv2.resize(whole, (tile, tile))
                for x, y in saved["landmarks"][index, ::3, :2] * tile:
                    cv2.circle(picture, (int(x), int(y)), 0, (0, 255, 0), -1)
                tiles.append(picture)
            rows.append(np.concatenate(tiles, 1))
    width = max(row.shape[1] for row in rows)
    sheet = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    cv2.imwrite(str(path), np.concatenate(sheet))


def main() -> None:
    """Draw, label and write the faces; a second run goes on where the first one stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the chunks")
    parser.add_argument("--landmarker", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="downloaded tools")
    parser.add_argument("--people", type=int, default=640)
    parser.add_argument("--edits", type=int, default=6, help="pictures of each person")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--strength", type=float, default=STRENGTH, help="of the edits")
    args = parser.parse_args()
    generate(
        *(args.out, args.people, args.edits, args.seed),
        cache=args.cache,
        landmarker=args.landmarker,
        strength=args.strength,
    )
    contact_sheet(args.out, args.out / "sheet.png")


if __name__ == "__main__":
    main()
