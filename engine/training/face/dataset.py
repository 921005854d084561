"""Labelled faces for the face detector and the landmark net: gathered once, degraded afresh at every step.

`gather` cuts the face out of every image (twice its side, 320 px) and keeps the teacher's
labels; `FaceSet` holds them in memory; `spoil` degrades a clean image as a bad camera does.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from engine.errors import DataError
from engine.face.candidates import FaceCrop
from engine.face.detector import SCORE_NAMES, face_box
from engine.outputs import own_folder
from engine.training.data.labeller import FaceLabel, Labeller

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Rng = np.random.Generator

STORED = 320  # pixels of a stored image
STORED_SCALE = 2.0  # its side over the face's side
STILLS_A_FILE = 200
STILL_PERSON = 100_000  # first person number of single images
HELD_OUT_EVERY = 16  # one person of so many is kept for validation


@dataclass(frozen=True, slots=True)
class FaceSet:
    """Faces in memory."""

    images: U8  # (N, 320, 320, 3)
    landmarks: F32  # (N, 478, 2) in image units [0, 1]
    scores: F32  # (N, 52)
    angles: F32  # (N, 2) yaw and pitch in radians
    person: NDArray[np.int64]  # (N,)

    def __len__(self) -> int:
        return len(self.person)

    def take(self, rows: NDArray[np.intp]) -> FaceSet:
        """The faces at the indices `rows` (M,)."""
        return FaceSet(
            self.images[rows],
            self.landmarks[rows],
            self.scores[rows],
            self.angles[rows],
            self.person[rows],
        )

    def split(self) -> tuple[FaceSet, FaceSet]:
        """Training and validation faces; no person is in both."""
        held_out = self.person % HELD_OUT_EVERY == 0
        return self.take(np.flatnonzero(~held_out)), self.take(np.flatnonzero(held_out))


def head_angles(pose: F32) -> tuple[float, float]:
    """Yaw and pitch in radians of a head-to-camera matrix (4, 4)."""
    yaw = np.arctan2(-pose[2, 0], np.hypot(pose[0, 0], pose[1, 0]))
    return float(yaw), float(np.arctan2(pose[2, 1], pose[2, 2]))


def mirror_points(landmarks: F32) -> NDArray[np.intp]:
    """Which point each point becomes in a mirrored face, from many faces (N, 478, 2).

    The mean of the faces and their mirror images is symmetric, so the nearest mirrored point
    (as a one-to-one assignment) is the partner.

    Raises:
        DataError: the faces are too few or too asymmetric; the map is not its own inverse.
    """
    span = np.ptp(landmarks, axis=1).max(1)[:, None, None]
    mean = ((landmarks - landmarks.mean(1, keepdims=True)) / span).mean(0)
    partner = np.arange(len(mean))
    for _ in range(3):  # the middle line is known better once the partners are
        distance = np.linalg.norm(mean[:, None] - mean[None] * [-1, 1], axis=2)
        partner = linear_sum_assignment(distance**2)[1]
        mean = (mean + mean[partner] * [-1, 1]) / 2
    if (partner[partner] != np.arange(len(partner))).any():
        raise DataError(f"{len(landmarks)} faces do not give a left-right map; more are needed")
    return np.asarray(partner, np.intp)


def gather(out: Path, chunks: Path, stills: Path | None, landmarker: Path | None) -> int:
    """Cut and store the faces of `chunks` (see `faces.generate`) and of the tar file `stills`.

    Files that exist already are kept, so the command can run again while faces are being drawn.

    Returns:
        the number of files now in `out`.
    """
    own_folder(out, earlier=any(out.glob("chunk_????.npz")) or any(out.glob("stills_????.npz")))
    for chunk in tqdm(sorted(chunks.glob("chunk_[0-9][0-9][0-9][0-9].npz")), desc="chunks"):
        target = out / f"{chunk.stem}.npz"
        if not target.exists():
            _store(target, _from_chunk(chunk))
    if stills is not None:
        if landmarker is None:
            raise DataError("images without labels need --landmarker to label them")
        label = Labeller(landmarker)
        with tarfile.open(stills) as archive:
            members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
            for start in tqdm(range(0, len(members), STILLS_A_FILE), desc="stills", unit="file"):
                target = out / f"stills_{start // STILLS_A_FILE:04d}.npz"
                if not target.exists():
                    part = members[start : start + STILLS_A_FILE]
                    _store(target, _from_stills(archive, part, STILL_PERSON + start, label))
    return len(list(out.glob("*.npz")))


def load(folder: Path) -> FaceSet:
    """Read every stored face.

    Raises:
        DataError: the folder holds none.
    """
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as saved:
            for key in ("pictures", "landmarks", "scores", "angles", "person"):
                name = "images" if key == "pictures" else key
                parts.setdefault(name, []).append(saved[key])
    if not parts:
        raise DataError(f"no faces in {folder}; run `python -m engine.training.face gather` first")
    joined = {key: np.concatenate(values) for key, values in parts.items()}
    return FaceSet(**joined)  # type: ignore[arg-type]


def _from_chunk(path: Path) -> Iterator[tuple[int, Image.Image, FaceLabel]]:
    with np.load(path) as saved:
        blob, offsets = saved["bytes"].tobytes(), saved["offsets"]
        if tuple(saved["names"]) != SCORE_NAMES:
            raise DataError(f"{path}: its scores are not in the order of SCORE_NAMES")
        rows = zip(
            saved["person"],
            offsets[:-1],
            offsets[1:],
            saved["landmarks"],
            saved["scores"],
            saved["pose"],
            strict=True,
        )
        for person, start, end, landmarks, scores, pose in rows:
            image = Image.open(io.BytesIO(blob[start:end])).convert("RGB")
            yield int(person), image, FaceLabel(landmarks, scores, pose)


def _from_stills(
    archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], first: int, label: Labeller
) -> Iterator[tuple[int, Image.Image, FaceLabel]]:
    for person, member in enumerate(members, first):
        file = archive.extractfile(member)
        assert file is not None  # only plain files are asked for
        image = Image.open(file).convert("RGB")
        found = label(np.asarray(image))
        if found is not None:
            yield person, image, found


def _store(target: Path, faces: Iterable[tuple[int, Image.Image, FaceLabel]]) -> None:
    people, images, landmarks, scores, angles = [], [], [], [], []
    for person, image, label in faces:
        points = label.landmarks[:, :2] * np.array(image.size, np.float32)
        left, top, right, bottom = face_box(points)
        side = max(right - left, bottom - top) * STORED_SCALE
        crop = FaceCrop((left + right) / 2, (top + bottom) / 2, side)
        people.append(person)
        images.append(crop.cut(image, STORED))
        landmarks.append((points - [crop.x, crop.y]) / side + 0.5)
        scores.append(label.scores)
        angles.append(head_angles(label.pose))
    partial = target.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(
            file,
            person=np.array(people),
            pictures=np.stack(images),
            landmarks=np.stack(landmarks).astype(np.float32),
            scores=np.stack(scores),
            angles=np.array(angles, np.float32),
        )
    partial.rename(target)


def spoil(rng: Rng, rgb: U8) -> U8:
    """A copy of `rgb` (H, W, 3) in other light, through a worse camera and a worse codec."""
    image = _relight(rng, rgb.astype(np.float32) / np.float32(255))
    if rng.random() < 0.25:
        image = _blur(rng, image)
    if rng.random() < 0.30:
        noise = rng.standard_normal(image.shape, np.float32)
        image = image + noise * np.float32(rng.uniform(0.005, 0.06))
    out = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.25:
        _, blob = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 80))])
        out = np.asarray(cv2.imdecode(blob, cv2.IMREAD_COLOR), np.uint8)
    return out


def _relight(rng: Rng, image: F32) -> F32:
    """Gain, contrast, gamma, colour cast, greyscale, light from one side."""
    gain = rng.uniform(0.85, 1.15, 3) if rng.random() < 0.6 else np.ones(3)
    gain = gain * (rng.uniform(0.3, 0.8) if rng.random() < 0.15 else rng.uniform(0.8, 1.3))
    image = np.clip(image * gain.astype(np.float32), 0, 1)
    if rng.random() < 0.4:
        image = image ** np.float32(np.exp(rng.uniform(-0.45, 0.45)))
    if rng.random() < 0.3:
        image = (image - 0.5) * np.float32(rng.uniform(0.5, 1.4)) + 0.5
    if rng.random() < 0.15:
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        image = np.repeat(grey[..., None], 3, 2) * np.array(
            [1, rng.uniform(0.85, 1), 1], np.float32
        )
    if rng.random() < 0.2:
        height, width = image.shape[:2]
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * np.linspace(-1, 1, width)[None] + np.sin(angle) * np.linspace(
            -1, 1, height
        ).reshape(-1, 1)
        image = image * (1 + rng.uniform(0.2, 0.7) * ramp[..., None]).astype(np.float32)
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _blur(rng: Rng, image: F32) -> F32:
    """Out of focus, shaken, or from an image of fewer pixels."""
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.0)), np.float32)
    height, width = image.shape[:2]
    if kind == 1:
        length = int(rng.integers(2, 8))
        kernel = np.zeros((9, 9), np.float32)
        angle = rng.uniform(0, np.pi)
        tip = (np.cos(angle) * length / 2, np.sin(angle) * length / 2)
        ends = [(round(4 + s * tip[0]), round(4 + s * tip[1])) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.float32)
    part = rng.uniform(0.25, 0.7)
    small = cv2.resize(image, None, fx=part, fy=part, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height)), np.float32)
