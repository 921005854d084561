"""Whether a face is still the same person: cosine of face-recognition embeddings (SFace, arXiv 2205.12010)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from engine.face.landmarks import similarity
from engine.face.topology import LEFT_LIDS, RIGHT_LIDS
from engine.loaders.packages import fetch

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
        path = fetch("sface", cache)[0]  # blockwise int8: only ONNX Runtime reads it
        model = onnx.load(path)
        del model.graph.input[1:]  # left-overs of its quantisation: weights that nothing reads
        assert model.graph.input[0].name == "data", "the image is the first input"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._net = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, rgb: NDArray[np.uint8], landmarks: F32) -> F32:
        """Unit embedding (128,) of the face with `landmarks` (478, 2) in pixels of `rgb`."""
        matrix = similarity(five_points(landmarks), TEMPLATE)
        crop = cv2.warpAffine(rgb, matrix, (112, 112), flags=cv2.INTER_LINEAR)
        image = np.asarray(crop, np.float32).transpose(2, 0, 1)[None]  # RGB, as OpenCV feeds it
        vector: F32 = self._net.run(None, {"data": np.ascontiguousarray(image)})[0][0]
        return vector / np.float32(np.linalg.norm(vector))
