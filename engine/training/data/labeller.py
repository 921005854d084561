"""The public face landmarker that labels training images (MediaPipe; never used at run time)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import DataError

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FaceLabel:
    """What the labelling tool says of one face."""

    landmarks: F32  # (478, 3), x and y in image units [0, 1]
    scores: F32  # (52,) ARKit-style coefficients
    pose: F32  # (4, 4) head to camera


class Labeller:
    """MediaPipe's landmarker, an extra.

    Args:
        model: path of `face_landmarker.task`.

    Raises:
        DataError: MediaPipe is not installed.
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

    def close(self) -> None:
        """Give up its threads and memory; left to the end of the process it ends with a traceback."""
        self._tool.close()

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
