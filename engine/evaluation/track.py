"""The face of a video, read once, frame by frame: landmarks, lips, head, lids, and where there was none."""

from __future__ import annotations

from collections.abc import Iterable
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
    eye_roll,
    face_box,
)
from engine.face.landmarks import head_shift, lip_gap, mouth_width
from engine.face.placement import SIXTY_EIGHT
from engine.training.data.labeller import Labeller
from engine.training.face.dataset import head_angles
from engine.types import RgbImage

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

    @property
    def lips(self) -> F32:
        """Lip gap and width of the mouth (T, 2), as `lip_gap` and `mouth_width` tell them."""
        both = lip_gap(self.landmarks), mouth_width(self.landmarks)
        return np.stack(both, 1).astype(np.float32)

    @property
    def head(self) -> F32:
        """Angles in degrees, then how far the face is from its median place in percent (T, 5)."""
        usual = np.median(self.landmarks, 0).astype(np.float32)
        shifts = [head_shift(usual, face)[1:3] * 100 for face in self.landmarks]
        return np.concatenate([self.angles, shifts], 1).astype(np.float32)

    def part(self, first: int, last: int | None = None) -> FaceTrack:
        """Frames `first` to before `last`."""
        rows = slice(first, last)
        return FaceTrack(
            self.landmarks[rows],
            self.angles[rows],
            self.lids[rows],
            self.found[rows],
            self.rivals,
        )

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


def own_reader(config: EngineConfig) -> FaceReader:
    """The project's own detector and landmark net."""
    backend = load_backend(config.backend, threads=config.threads)
    return FaceReader(
        backend.load(DETECTOR, config.weights / "detector.onnx"),
        backend.load(LANDMARKS, config.weights / "landmarks.onnx"),
    )


@cache
def face_reader() -> FaceReader:
    """The same as it is installed, for all measures."""
    return own_reader(EngineConfig(threads=1))


def follow(
    frames: Iterable[RgbImage], reader: FaceReader | None = None, label: Labeller | None = None
) -> FaceTrack:
    """Follow the largest face of the first frame that has one through frames (H, W, 3).

    Args:
        reader: the project's own nets.
        label: the public landmarker, which then reads in their place; it knows of one face.

    Raises:
        DataError: no face in any frame.
    """
    reader = None if label is not None else reader or face_reader()
    faces: list[Face | None] = []
    last, rivals = None, 0
    for number, rgb in enumerate(frames):
        if reader is None:
            assert label is not None
            face = labelled(label, rgb)
        else:
            face, others = _face(reader, rgb, last, search=number % RIVALS_EVERY == 0)
            rivals += others
        last = face if face is not None else last
        faces.append(face)
    found = np.array([face is not None for face in faces])
    if not found.any():
        raise DataError(f"no face in any of {len(faces)} frames")
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


def labelled(label: Labeller, rgb: RgbImage) -> Face | None:
    """The face that the public landmarker finds in `rgb` (H, W, 3)."""
    found = label(enlarge(rgb))
    if found is None:
        return None
    points = found.landmarks[:, :2] * np.array(rgb.shape[1::-1], np.float32)
    yaw, pitch = head_angles(found.pose)
    return Face(points, found.scores, yaw, pitch, eye_roll(points), 1.0, face_box(points))


def enlarge(rgb: RgbImage, side: int = 512) -> RgbImage:
    """Scale a small image (H, W, 3) up, its longer side to `side` pixels.

    The public landmarker reads large images better.
    """
    scale = side / max(rgb.shape[:2])
    if scale <= 1:
        return rgb
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def _face(
    reader: FaceReader, rgb: RgbImage, last: Face | None, *, search: bool
) -> tuple[Face | None, bool]:
    """The face that is followed, and whether another one as large was seen in a search."""
    image = Image.fromarray(rgb)
    face = None if last is None else reader.look(image, aligned_crop(last.landmarks))
    if face is not None and face.confidence < LOST:
        face = None
    if face is not None and not search:
        return face, False
    everyone = reader.faces(rgb)
    if face is None and everyone:
        found = everyone[0] if last is None else min(everyone, key=lambda f: _apart(f, last))
        face = reader.look(image, aligned_crop(found.landmarks))  # as every later frame is read
    rivals = [f for f in everyone if face is not None and f.side >= RIVAL_SIDE * face.side]
    return face, len(rivals) > 1


def _apart(a: Face, b: Face) -> float:
    return float(np.linalg.norm(a.landmarks.mean(0) - b.landmarks.mean(0)))
