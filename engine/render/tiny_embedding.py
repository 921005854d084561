"""The bundled enrolment network as a face encoder, where no recognition network is at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.backends import Graph
from engine.face.landmarks import crop_transform
from engine.render.composite_maps import cut_crop
from engine.types import RgbImage

F32 = NDArray[np.float32]


class TinyEmbedder:
    """The identity tokens (4 x 128) of the bundled enrolment network, as one vector.

    Needs no download. It is no recognition network: it sees the crop around the mouth and was
    trained to paint, so people with alike mouths come out alike. Use a recognition network where
    one is at hand.
    """

    name = "tiny"
    width = 512

    def __init__(self, enroll: Graph) -> None:
        self._enroll = enroll

    def __call__(self, rgb: RgbImage, landmarks: F32) -> F32:
        """Unit embedding (512,) of the face with `landmarks` (478, 2) in pixels of `rgb` (H, W, 3)."""
        crop = cut_crop(rgb, crop_transform(landmarks))
        vector = self._enroll(crop=crop)["identity"].reshape(-1)
        return np.asarray(vector / np.linalg.norm(vector), np.float32)
