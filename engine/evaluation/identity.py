"""Whether a face is still the same person: cosine of face-recognition embeddings (SFace, arXiv 2205.12010)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.numpy_helper import from_array, to_array

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
        path = fetch("sface", cache)[0]
        model = onnx.load(path)
        del model.graph.input[1:]  # left-overs of its quantisation: weights that nothing reads
        assert model.graph.input[0].name == "data", "the image is the first input"
        unpack_weights(model)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # so small a network is no faster on two
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


def unpack_weights(model: onnx.ModelProto) -> None:
    """Make fp32 of weights that are stored as int8 in blocks: else every run does, for half of its time."""
    stored = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or any(name not in stored for name in node.input):
            kept.append(node)
            continue
        numbers, scales, zeros = (stored[name] for name in node.input)
        told = {attribute.name: attribute.i for attribute in node.attribute}
        axis, size = told["axis"], told["block_size"]
        at = np.arange(numbers.shape[axis]) // size
        scales, zeros = scales.take(at, axis), zeros.take(at, axis)
        whole = (numbers.astype(np.float32) - zeros.astype(np.float32)) * scales
        model.graph.initializer.append(from_array(whole.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
