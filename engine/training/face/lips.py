"""Mouths for the lip net, covered and not, and how well it judges them; see `engine.training.face.train`."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from engine.errors import DataError
from engine.face.detector import FaceReader
from engine.face.landmarks import Affine, crop_transform, invert, lip_gap
from engine.face.lips import DOUBTFUL, HIDDEN, LIP_CROP
from engine.nets.face import GAP_UNIT, LipNet
from engine.training.data.labeller import Labeller
from engine.training.face.dataset import spoil
from engine.training.face.occluders import KINDS, cover, gape

U8 = NDArray[np.uint8]
Rng = np.random.Generator

STORED = 96  # pixels of a stored crop
FACE_SIDE = 448  # a larger image is scaled down before it is covered
KEPT_IMAGES = 40  # whose parts cover other mouths
CLEAN, GAPE = "clean", "gape"


@dataclass(frozen=True, slots=True)
class Mouths:
    """Crops around mouths, some of them covered."""

    crops: U8  # (N, 96, 96, 3)
    seen: NDArray[np.float32]  # (N,) share of the lips that is seen
    gaps: NDArray[np.float32]  # (N,) lip gap over the face's height; nan where they are covered
    kinds: NDArray[
        np.str_
    ]  # (N,) what was done: "clean" nothing, "gape" opened wide, else what covers them
    names: NDArray[np.str_]  # (N,) of the image

    @classmethod
    def load(cls, path: Path, leave_out: frozenset[str] = frozenset()) -> Mouths:
        """Read what `gather` wrote, without the images named in `leave_out`.

        Raises:
            DataError: there is no such file, or nothing in it.
        """
        if not path.is_file():
            raise DataError(f"no file {path}; run `lips-gather` first")
        with np.load(path) as saved:
            kept = np.array([str(name) not in leave_out for name in saved["names"]], bool)
            if not kept.any():
                raise DataError(f"{path} holds no mouths")
            return cls(*(saved[key][kept] for key in ("crops", "seen", "gaps", "kinds", "names")))


@dataclass(frozen=True, slots=True)
class Batch:
    """Mouths of one training step."""

    crops: U8  # (N, 64, 64, 3)
    seen: NDArray[np.float32]  # (N, 1)
    gaps: NDArray[np.float32]  # (N, 1), nan where it is not known


def images(source: Path) -> Iterator[tuple[str, Image.Image]]:
    """Name and image of each file of a tar file or a folder, in order of their names."""
    if source.is_dir():
        for path in sorted(source.iterdir()):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
                yield path.name, Image.open(path).convert("RGB")
        return
    with tarfile.open(source) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, Image.open(file).convert("RGB")


def gather(
    source: Path, out: Path, reader: FaceReader, label: Labeller, copies: int, seed: int
) -> int:
    """Cut the mouth of every image of `source` as it is, covered and opened; the crops made.

    The face is looked for anew in each: a cover that hides the face from the reader is left out.

    Args:
        label: tells how wide a mouth is open.
        copies: covered versions of each image; a third as many are opened wide.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[U8, float, float, str, str]] = []
    others: list[U8] = []

    def add(rgb: U8, seen: float, gap: float, kind: str, name: str) -> None:
        if faces := reader.faces(rgb):
            crop = mouth_crop(rgb, crop_transform(faces[0].landmarks))
            rows.append((crop, seen, gap, kind, name))

    for name, image in tqdm(images(source), desc="mouths", unit="image"):
        image.thumbnail((FACE_SIDE, FACE_SIDE), Image.Resampling.LANCZOS)
        rgb = np.asarray(image)
        found = label(rgb)
        if found is None:
            continue
        landmarks = (found.landmarks[:, :2] * np.array(image.size)).astype(np.float32)
        gap = float(lip_gap(landmarks))
        add(rgb, 1.0, gap, CLEAN, name)
        others = [*others[1 - KEPT_IMAGES :], rgb]
        for _ in range(copies):
            covered, seen, kind = cover(rng, rgb, landmarks, others)
            add(covered, seen, float("nan"), kind, name)
        for _ in range(copies // 3):
            opened, wider = gape(rng, rgb, landmarks)
            add(opened, 1.0, gap + wider, GAPE, name)
    crops, seens, gaps, kinds, names = zip(*rows, strict=True)
    with out.open("wb") as file:
        np.savez(
            file,
            crops=np.stack(crops),
            seen=np.array(seens, np.float32).clip(0, 1),
            gaps=np.array(gaps, np.float32),
            kinds=np.array(kinds),
            names=np.array(names),
        )
    return len(rows)


def mouth_crop(rgb: U8, to_crop: Affine) -> U8:
    """The square around the mouth as (96, 96, 3)."""
    back = invert(to_crop)
    matrix = np.c_[back[:, :2] / STORED, back[:, 2]].astype(np.float64)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(rgb, matrix, (STORED, STORED), flags=how), np.uint8)


def batch(rng: Rng, mouths: Mouths, size: int) -> Batch:
    """Draw mouths, a third each clean, wide open and covered, each spoilt in its own way."""
    clean, open_ = mouths.kinds == CLEAN, mouths.kinds == GAPE
    third = size // 3
    counts = ((clean, size - 2 * third), (open_, third), (~clean & ~open_, third))
    rows = np.concatenate([rng.choice(np.flatnonzero(which), count) for which, count in counts])
    crops = np.stack([_vary(rng, mouths.crops[row]) for row in rows])
    return Batch(crops, mouths.seen[rows, None], mouths.gaps[rows, None])


def _vary(rng: Rng, crop: U8) -> U8:
    """Another framing, light and camera; the picture's edge may come near the mouth."""
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    turn = cv2.getRotationMatrix2D((STORED / 2, STORED / 2), rng.normal(0, 4), 1)
    scale = LIP_CROP / STORED * rng.uniform(0.92, 1.1)
    shift = rng.normal(0, 1.2, 2) + LIP_CROP / 2 - scale * STORED / 2
    matrix = turn * scale + np.c_[np.zeros((2, 2)), shift]
    size = (LIP_CROP, LIP_CROP)
    small = cv2.warpAffine(np.ascontiguousarray(crop), matrix, size, flags=cv2.INTER_AREA)
    if rng.random() < 0.25:
        pixels = int(rng.integers(14, 48))
        small = cv2.resize(small, (pixels, pixels), interpolation=cv2.INTER_AREA)
        small = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    out = spoil(rng, np.asarray(small, np.uint8))
    if rng.random() < 0.2:
        edge = int(rng.integers(1, LIP_CROP // 7))
        [lambda: out[-edge:], lambda: out[:, :edge], lambda: out[:, -edge:]][rng.integers(3)]()[
            :
        ] = 0
    return out


def lip_loss(net: LipNet, drawn: Batch) -> dict[str, torch.Tensor]:
    """How far the net is from what is seen, and from how wide mouths that are seen are open."""
    seen, gap = net(torch.from_numpy(drawn.crops))
    wanted = torch.from_numpy(drawn.gaps)
    known = ~wanted.isnan()
    return {
        "seen": binary_cross_entropy_with_logits(seen, torch.from_numpy(drawn.seen)),
        "gap": (gap[known] - wanted[known]).abs().mean() / GAP_UNIT,
    }


def judge(net: torch.nn.Module, mouths: Mouths) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the net takes to be seen of each mouth (N,), in [0, 1], and how wide it is open (N,)."""
    size = (LIP_CROP, LIP_CROP)
    small = [cv2.resize(c, size, interpolation=cv2.INTER_AREA) for c in mouths.crops]
    with torch.no_grad():
        parts = [
            net(torch.from_numpy(np.stack(small[i : i + 256]))) for i in range(0, len(small), 256)
        ]
    seen, gap = (torch.cat(part)[:, 0] for part in zip(*parts, strict=True))
    return torch.sigmoid(seen).numpy(), gap.numpy()


def rates(net: torch.nn.Module, mouths: Mouths) -> Iterator[str]:
    """For each kind of mouth: how many are refused as covered, how many refused or said, the error of the gap."""
    judged, gaps = judge(net, mouths)
    clean, open_ = mouths.kinds == CLEAN, mouths.kinds == GAPE
    covered = ~clean & ~open_
    parts = [("as it is", clean), ("opened wide", open_)]
    for low, high in ((0.0, 0.1), (0.1, 0.4), (0.4, 0.7), (0.7, 0.95), (0.95, 1.01)):
        within = covered & (mouths.seen >= low) & (mouths.seen < high)
        parts.append((f"{low:.0%} to {min(high, 1):.0%} seen", within))
    hidden = covered & (mouths.seen < 0.1)
    parts += [(f"{kind}, hidden", hidden & (mouths.kinds == kind)) for kind in KINDS]
    for name, rows in parts:
        if rows.any():
            refused, said = (judged[rows] < HIDDEN).mean(), (judged[rows] < DOUBTFUL).mean()
            error = np.abs(gaps[rows] - mouths.gaps[rows]).mean()
            gap = "" if np.isnan(error) else f"  gap off by {error:.4f}"
            yield f"{name:20}{rows.sum():6}  refused {refused:6.1%}  or said {said:6.1%}{gap}"
