"""Is it still the same person? Cosine of face-recognition embeddings (SFace, arXiv 2205.12010)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from engine.landmarks import similarity
from engine.topology import LEFT_LIDS, RIGHT_LIDS
from engine.training.sources import fetch

F32 = NDArray[np.float32]
# Where recognition networks of this family want eyes, nose and mouth corners in 112 x 112.
TEMPLATE = np.array(
    [[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]], np.float32
)


def five_points(landmarks: F32) -> F32:
    """Eyes, nose tip and mouth corners of landmarks (478, 2): (5, 2)."""
    eyes = [landmarks[[p for row in lids for p in row]].mean(0) for lids in (RIGHT_LIDS, LEFT_LIDS)]
    return np.stack([*eyes, landmarks[1], landmarks[61], landmarks[291]])


class IdentityScore:
    """Embeds faces with SFace."""

    def __init__(self, cache: Path) -> None:
        self._net = ov.Core().compile_model(fetch("sface", cache)[0], "CPU")

    def embed(self, rgb: NDArray[np.uint8], landmarks: F32) -> F32:
        """Unit embedding (128,) of the face with `landmarks` (478, 2) in pixels of `rgb`."""
        matrix = similarity(five_points(landmarks), TEMPLATE)
        crop = cv2.warpAffine(rgb, matrix, (112, 112), flags=cv2.INTER_LINEAR)
        bgr = np.asarray(crop, np.float32)[:, :, ::-1].transpose(2, 0, 1)[None]
        vector: F32 = self._net(np.ascontiguousarray(bgr))[0][0]
        return vector / np.float32(np.linalg.norm(vector))
