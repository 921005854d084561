"""Directions in a face generator's style space that open a mouth, round the lips, close the eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine.face.landmarks import lip_gap
from engine.training.data.face_generator import FaceGenerator
from engine.training.data.labeller import FaceLabel, Labeller

F32 = NDArray[np.float32]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Which people are drawn, and how they are changed."""

    people: int
    edits: int  # images of each person
    seed: int
    strength: float = STRENGTH


@dataclass(frozen=True, slots=True)
class Directions:
    """Unit directions in standardised w that change one label each."""

    mean: F32  # (512,)
    std: F32  # (512,)
    edits: dict[str, F32]  # name -> (512,)


def _targets(labels: Sequence[FaceLabel], names: Sequence[str]) -> dict[str, F32]:
    scores = np.stack([label.scores for label in labels])

    def score(name: str) -> F32:
        column: F32 = scores[:, names.index(name)]
        return column

    points = np.stack([label.landmarks for label in labels])
    height = np.linalg.norm(points[:, 10, :2] - points[:, 152, :2], axis=1)
    return {
        "gap": np.log(lip_gap(points) + 0.02),
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
        for style, image in zip(batch, generator.draw(list(batch)), strict=True):
            if (found := label(image)) is not None:
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
    drawing: Drawing,
) -> list[F32]:
    """Style vectors (512,) of one person: the plain one, then `drawing.edits - 1` expressions."""
    rng = np.random.RandomState([drawing.seed, person])
    style = generator.map(rng.randn(1, 512).astype(np.float32))[0]
    base = directions.mean + 0.75 * (style - directions.mean)
    styles = [base]
    for _ in range(drawing.edits - 1):
        names = set(rng.choice(MOUTH_EDITS, size=rng.randint(1, 4), replace=False))
        names |= set(rng.choice(list(EDITS), size=rng.randint(0, 3), replace=False))
        move = sum(rng.uniform(*EDITS[n]) * directions.edits[n] for n in sorted(names))
        styles.append(base + drawing.strength * move * directions.std)
    return [s.astype(np.float32) for s in styles]
