"""Fits what the 52 coefficients do to the 478 points, from within-person differences."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import DataError
from engine.face import arkit
from engine.face.landmarks import apply, crop_transform, similarity
from engine.face.topology import (
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    STABLE,
)

F64 = NDArray[np.float64]
LIPS = [*INNER_UPPER_LIP, *INNER_LOWER_LIP, *OUTER_UPPER_LIP, *OUTER_LOWER_LIP]


def load_labels(folder: Path) -> tuple[F64, F64, NDArray[np.int64]]:
    """Landmarks (N, 478, 3) in image units, coefficients (N, 52) in our order, person (N,)."""
    points, scores, people = [], [], []
    for file in sorted(folder.glob("chunk_????.npz")):
        with np.load(file) as saved:
            names = [str(n) for n in saved["names"]]
            column = [names.index(n) if n in names else -1 for n in arkit.NAMES]
            padded = np.c_[saved["scores"], np.zeros(len(saved["scores"]))]  # -1: never seen
            points.append(saved["landmarks"])
            scores.append(padded[:, column])
            people.append(saved["person"])
    if not points:
        raise DataError(f"no chunk_NNNN.npz under {folder}")
    return (
        np.concatenate(points).astype(np.float64),
        np.concatenate(scores).astype(np.float64),
        np.concatenate(people),
    )


def _level(points: F64, reference: F64) -> F64:
    """Move a face onto its person's reference by the stable points, in crop units of that one."""
    to_unit = crop_transform(reference.astype(np.float32))
    fit = similarity(points[list(STABLE)], reference[list(STABLE)])
    return apply(to_unit, apply(fit, points)).astype(np.float64)


def fit_basis(
    points: F64, scores: F64, people: NDArray[np.int64], ridge: float = 0.5
) -> tuple[F64, dict[str, float]]:
    """Ridge of landmark displacement on coefficient difference.

    Returns:
        basis (52, 478, 2) in crop units per unit of coefficient, and held-out figures (a tenth of
        the people): R2 of all points and of the lips.
    """
    inputs, outputs = [], []
    for person in np.unique(people):
        index = np.flatnonzero(people == person)
        if len(index) < 3:
            continue
        faces = np.stack([_level(points[i, :, :2], points[index[0], :, :2]) for i in index])
        inputs.append(scores[index] - scores[index].mean(0))
        outputs.append((faces - faces.mean(0)).reshape(len(index), -1))
    split = len(inputs) * 9 // 10
    x, y = np.concatenate(inputs[:split]), np.concatenate(outputs[:split])
    basis = np.linalg.solve(x.T @ x + ridge * np.eye(arkit.COUNT), x.T @ y)
    left, wanted = np.concatenate(inputs[split:]) @ basis, np.concatenate(outputs[split:])

    def r2(rows: list[int]) -> float:
        columns = np.ravel([[2 * r, 2 * r + 1] for r in rows])
        miss = ((left - wanted)[:, columns] ** 2).sum()
        return round(float(1 - miss / (wanted[:, columns] ** 2).sum()), 3)

    figures = {"r2_all": r2(list(range(478))), "r2_lips": r2(LIPS), "people": float(len(inputs))}
    return basis.reshape(arkit.COUNT, 478, 2), figures


def mean_depth(points: F64) -> F64:
    """Mean depth of each point in crop units, larger is farther: (478,)."""
    unit = np.array(
        [np.linalg.det(crop_transform(p[:, :2].astype(np.float32))[:, :2]) for p in points]
    )
    return np.mean(points[:, :, 2] * np.sqrt(unit)[:, None], 0)


def main() -> None:
    """Fit and write the basis."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of `faces` chunks")
    parser.add_argument("--out", type=Path, required=True, help="basis.npz to write")
    args = parser.parse_args()
    points, scores, people = load_labels(args.data)
    basis, figures = fit_basis(points, scores, people)
    np.savez_compressed(
        args.out, basis=basis.astype(np.float16), depth=mean_depth(points).astype(np.float16)
    )
    print(figures)  # noqa: T201


if __name__ == "__main__":
    main()
