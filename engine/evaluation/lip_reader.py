"""Reads how far the lips are apart and how wide the mouth is, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import DataError
from engine.face.detector import FaceReader, aligned_crop
from engine.face.landmarks import lip_gap, mouth_width
from engine.training.data.labeller import Labeller
from engine.types import RgbImage

F32 = NDArray[np.float32]


class LipReader:
    """Reads the lips of one face from frame to frame.

    Args:
        reader: the project's own landmark net.
        label: the public landmarker, which then reads in its place.
    """

    def __init__(self, reader: FaceReader, label: Labeller | None = None) -> None:
        self._reader, self._label = reader, label
        self._at: F32 | None = None

    def gap(self, rgb: RgbImage) -> float:
        """Lip gap of the face in `rgb` (H, W, 3); that of the frame before when none is found."""
        points = self._points(rgb)
        return 0.0 if points is None else float(lip_gap(points))

    def read(self, rgb: RgbImage) -> tuple[float, float]:
        """Lip gap and width of the mouth in `rgb` (H, W, 3); as before when no face is found."""
        points = self._points(rgb)
        if points is None:
            return 0.0, 0.0
        return float(lip_gap(points)), float(mouth_width(points))

    def _points(self, rgb: RgbImage) -> F32 | None:
        """Landmarks (478, 2) in pixels; None as long as no face was found."""
        if self._label is not None:
            found = self._label(enlarge(rgb))
            if found is not None:
                size = np.array([rgb.shape[1], rgb.shape[0]], np.float32)
                self._at = found.landmarks[:, :2] * size
            return self._at
        if self._at is None:
            self._at = self._reader.read(rgb).face.landmarks
        self._at = self._reader.look(Image.fromarray(rgb), aligned_crop(self._at)).landmarks
        return self._at


def enlarge(rgb: RgbImage, side: int = 512) -> RgbImage:
    """Scale a small image (H, W, 3) up, its longer side to `side` pixels.

    The public landmarker reads large images better.
    """
    scale = side / max(rgb.shape[:2])
    if scale <= 1:
        return rgb
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def read_frames(clip: Path) -> Iterator[RgbImage]:
    """Every frame (H, W, 3) of a video; raises `DataError` when it has none."""
    with av.open(str(clip)) as container:
        if not container.streams.video:
            raise DataError(f"{clip.name} has no frames")
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
