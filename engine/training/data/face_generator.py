"""A public face generator: made-up people, drawn from style vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from engine.loaders.packages import fetch

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
SIZE = 512  # pixels of a stored image; the generator draws 1024


class FaceGenerator:
    """MobileStyleGAN as two compiled graphs: noise -> w (512) -> image."""

    def __init__(self, cache: Path) -> None:
        files = {
            part: fetch(f"stylegan-{part}", cache)[0]
            for part in ("mapping-xml", "mapping-bin", "synthesis-xml", "synthesis-bin")
        }
        core = ov.Core()
        self._map = core.compile_model(
            core.read_model(files["mapping-xml"], files["mapping-bin"]), "CPU"
        )
        self._draw = core.compile_model(
            core.read_model(files["synthesis-xml"], files["synthesis-bin"]),
            "CPU",
            {"PERFORMANCE_HINT": "LATENCY"},
        )

    def map(self, noise: F32) -> F32:
        """Standard normal `noise` (N, 512) -> style vectors (N, 512)."""
        return np.concatenate([self._map(row[None])[0] for row in noise]).astype(np.float32)

    def draw(self, styles: Sequence[F32]) -> list[U8]:
        """Draw one image (512, 512, 3) a style vector, two requests in flight."""
        images: dict[int, U8] = {}

        def keep(request: ov.InferRequest, index: int) -> None:
            rgb = request.get_output_tensor(0).data[0].transpose(1, 2, 0)
            full = (np.clip(rgb / 2 + 0.5, 0, 1) * 255).astype(np.uint8)
            images[index] = cv2.resize(full, (SIZE, SIZE), interpolation=cv2.INTER_AREA)

        queue = ov.AsyncInferQueue(self._draw, 2)
        queue.set_callback(keep)
        for index, style in enumerate(styles):
            queue.start_async({0: style[None].astype(np.float32)}, index)
        queue.wait_all()
        return [images[i] for i in range(len(styles))]
