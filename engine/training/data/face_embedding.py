"""A face -> its embedding, for identity tokens."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.types import RgbImage

F32 = NDArray[np.float32]


class FaceEmbedder(Protocol):
    """What makes embeddings of faces; a clip says which one made its own."""

    name: str
    width: int

    def __call__(self, rgb: RgbImage, landmarks: F32) -> F32:
        """Unit embedding (width,) of the face with `landmarks` (478, 2) in pixels of `rgb`."""
