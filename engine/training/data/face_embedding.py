"""A face -> its embedding, for identity tokens. The background is taken away first."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.training.data.face_masks import head_mask
from engine.types import RgbImage

F32 = NDArray[np.float32]
GREY = 127


class FaceEmbedder(Protocol):
    """What makes embeddings of faces; a clip says which one made its own."""

    name: str
    width: int

    def __call__(self, rgb: RgbImage, landmarks: F32) -> F32:
        """Unit embedding (width,) of the face with `landmarks` (478, 2) in pixels of `rgb`."""


def without_background(rgb: RgbImage, landmarks: F32) -> RgbImage:
    """Grey outside the head: square `rgb` (S, S, 3), landmarks (478, 2) in [0, 1]."""
    mask = head_mask(landmarks, rgb.shape[0])[..., None]
    return (rgb * mask + GREY * (1 - mask)).astype(np.uint8)
