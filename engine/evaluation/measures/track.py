"""The face of a video, frame by frame: its landmarks, its angles, and where it could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.backends import load_backend
from engine.config import EngineConfig
from engine.errors import DataError
from engine.face.detector import (
    DETECTOR,
    LANDMARKS,
    RIVAL_SIDE,
    Face,
    FaceReader,
    aligned_crop,
)
from engine.face.placement import SIXTY_EIGHT

F32 = NDArray[np.float32]
LOST = 0.5  # presence under which a followed face is looked for anew
RIVALS_EVERY = 25  # frames from one search for other faces to the next


@dataclass(frozen=True)
class FaceTrack:
    """What was read of a video of T frames.

    Attributes:
        landmarks: (T, 478, 2) in pixels; where none was found those of the nearest frame that has.
        angles: (T, 3) yaw, pitch, roll in degrees.
        lids: (T,) how far the eyes are shut, in [0, 1]: the lids' score, mean of both.
        found: (T,) whether a face was read in the frame.
        rivals: frames of those searched in which another face was found.
    """

    landmarks: F32
    angles: F32
    lids: F32
    found: NDArray[np.bool_]
    rivals: int

    @property
    def points(self) -> F32:
        """The usual 68 points (T, 68, 2)."""
        return self.landmarks[:, list(SIXTY_EIGHT)]

    def notes(self, whose: str) -> list[str]:
        """What has to be said of it."""
        said = []
        if missing := int((~self.found).sum()):
            said.append(
                f"{whose}: no face in {missing} of {len(self.found)} frames; they are left out"
            )
        if self.rivals:
            said.append(
                f"{whose}: more than one face; the one that is largest at first is followed"
            )
        return said


@cache
def face_reader() -> FaceReader:
    """The project's own detector and landmark net."""
    config = EngineConfig(threads=1)
    backend = load_backend(config.backend, threads=1)
    return FaceReader(
        backend.load(DETECTOR, config.weights / "detector.onnx"),
        backend.load(LANDMARKS, config.weights / "landmarks.onnx"),
    )


def follow(frames: NDArray[np.uint8], reader: FaceReader | None = None) -> FaceTrack:
    """Follow the largest face of the first frame that has one through frames (T, H, W, 3).

    Raises:
        DataError: no face in any frame.
    """
    reader = reader or face_reader()
    faces: list[Face | None] = []
    last, rivals = None, 0
    for number, rgb in enumerate(frames):
        face, others = _face(reader, rgb, last, search=number % RIVALS_EVERY == 0)
        rivals += others
        last = face if face is not None else last
        faces.append(face)
    found = np.array([face is not None for face in faces])
    if not found.any():
        raise DataError(f"no face in any of {len(frames)} frames")
    where = np.flatnonzero(found)
    nearest = [int(where[np.abs(where - t).argmin()]) for t in range(len(faces))]
    kept = [face for i in nearest if (face := faces[i]) is not None]
    return FaceTrack(
        np.stack([f.landmarks for f in kept]).astype(np.float32),
        np.degrees([[f.yaw, f.pitch, f.roll] for f in kept]).astype(np.float32),
        np.array([f.scores[9:11].mean() for f in kept], np.float32),
        found,
        rivals,
    )


def _face(
    reader: FaceReader, rgb: NDArray[np.uint8], last: Face | None, *, search: bool
) -> tuple[Face | None, bool]:
    """The face that is followed, and whether another one as large was seen in a search."""
    face = None
    if last is not None:
        face = reader.look(Image.fromarray(rgb), aligned_crop(last.landmarks))
        if face.confidence < LOST:
            face = None
    if face is not None and not search:
        return face, False
    everyone = reader.faces(rgb)
    if face is None and everyone:
        face = everyone[0] if last is None else min(everyone, key=lambda f: _apart(f, last))
    rivals = [f for f in everyone if face is not None and f.side >= RIVAL_SIDE * face.side]
    return face, len(rivals) > 1


def _apart(a: Face, b: Face) -> float:
    return float(np.linalg.norm(a.landmarks.mean(0) - b.landmarks.mean(0)))
