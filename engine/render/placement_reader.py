"""Where the head stands in a drawn frame, read from the frame itself, as the paper places the next one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.face.detector import Face, FaceReader, aligned_crop
from engine.face.placement import placement
from engine.types import RgbImage

F32 = NDArray[np.float32]
SEEN = 0.5  # presence from which there is a face to read


class PlacementReader:
    """Reads with the landmark net."""

    def __init__(self, reader: FaceReader) -> None:
        self._reader = reader

    def turn(self, rgb: RgbImage, landmarks: F32) -> F32 | None:
        """Yaw and pitch (2,) of the face at landmarks (478, 2), in [0, 1], of a square (S, S, 3).

        None where there is no face to be seen.
        """
        face = self._look(rgb, landmarks)
        return None if face is None else np.array([face.yaw, face.pitch], np.float32)

    def place(self, rgb: RgbImage, landmarks: F32, rest: F32) -> F32 | None:
        """Placement (8,) of such a face; None as in `turn`.

        Args:
            rest: yaw and pitch (2,) of the portrait, which counts as seen from the front.
        """
        face = self._look(rgb, landmarks)
        if face is None:
            return None
        unit = face.landmarks / np.float32(len(rgb))
        return placement(unit, face.yaw - float(rest[0]), face.pitch - float(rest[1]))

    def _look(self, rgb: RgbImage, landmarks: F32) -> Face | None:
        crop = aligned_crop(landmarks * np.float32(len(rgb)))
        face = self._reader.look(Image.fromarray(rgb), crop)
        return face if face.confidence >= SEEN else None
