"""One face followed through a video: pieces without cuts in which it is always seen.

A tracked face costs one run of the landmark net a frame, on the crop that the frame before aligned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.face.detector import MIN_PRESENCE, Face, FaceReader, aligned_crop
from engine.types import RgbImage

F32 = NDArray[np.float32]
THUMB = 32  # pixels a side of the small frame that cuts are seen in


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSettings:
    """When a piece ends and when it is worth keeping."""

    least_frames: int = 25
    longest_frames: int = 1500  # a minute; a longer piece is cut in two
    min_face_px: float = 80.0
    cut: float = 30.0  # mean difference of two thumbnails, of 255, that is a cut
    jump: float = 0.35  # of the face's side that it may move between two frames
    max_yaw: float = 0.9  # radians


@dataclass(slots=True)
class Piece:
    """A face in consecutive frames; coordinates in pixels of the video."""

    first: int
    size: tuple[int, int]  # height and width of the video
    faces: list[Face] = field(default_factory=list)

    @property
    def landmarks(self) -> F32:
        """(T, 478, 2)."""
        return np.stack([face.landmarks for face in self.faces])


def track(frames: Iterable[RgbImage], reader: FaceReader, settings: TrackSettings) -> list[Piece]:
    """Follow the largest face through the frames (H, W, 3) of a video; pieces worth keeping."""
    pieces: list[Piece] = []
    open_piece: Piece | None = None
    before: NDArray[np.int16] | None = None
    for index, rgb in enumerate(frames):
        image = Image.fromarray(rgb)
        thumb = np.asarray(image.resize((THUMB, THUMB)), np.int16)
        same_shot = before is not None and np.abs(thumb - before).mean() < settings.cut
        before = thumb
        known = open_piece.faces[-1] if open_piece is not None and same_shot else None
        face = follow(image, rgb, reader, known, settings)
        if face is None or known is None or _far(face, known, settings):
            open_piece = None
        if face is None:
            continue
        if open_piece is None or len(open_piece.faces) == settings.longest_frames:
            open_piece = Piece(index, rgb.shape[:2])
            pieces.append(open_piece)
        open_piece.faces.append(face)
    return [p for p in pieces if worth_keeping(p, settings)]


def follow(
    image: Image.Image,
    rgb: RgbImage,
    reader: FaceReader,
    known: Face | None,
    settings: TrackSettings,
) -> Face | None:
    """The face of one frame: where it was a frame ago, else the largest anywhere.

    Args:
        image: the frame, as an image of Pillow's.
        rgb: the same frame (H, W, 3).
        known: the face in the frame before.

    Returns:
        None when no face is found.
    """
    if known is not None:
        face = reader.look(image, aligned_crop(known.landmarks))
        if face.confidence >= MIN_PRESENCE and not _far(face, known, settings):
            return face
    found = reader.faces(rgb)
    return found[0] if found else None


def _far(face: Face, known: Face, settings: TrackSettings) -> bool:
    moved = np.linalg.norm(face.landmarks.mean(0) - known.landmarks.mean(0))
    grown = max(face.side, known.side) / max(1e-3, min(face.side, known.side))
    return bool(moved > settings.jump * known.side or grown > 1 + settings.jump)


def worth_keeping(piece: Piece, settings: TrackSettings) -> bool:
    """Long enough, large enough and turned to the camera more often than not."""
    return (
        len(piece.faces) >= settings.least_frames
        and float(np.median([f.side for f in piece.faces])) >= settings.min_face_px
        and float(np.median([abs(f.yaw) for f in piece.faces])) <= settings.max_yaw
    )
