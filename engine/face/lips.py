"""Are the lips of a portrait there to be seen? Geometry for the picture's edge, a small net for what covers them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.backends import BATCH, Graph, GraphSpec, TensorSpec
from engine.errors import PortraitRefused
from engine.face.landmarks import Affine, invert
from engine.face.topology import OUTER_LOWER_LIP, OUTER_UPPER_LIP
from engine.types import RgbImage

F32 = NDArray[np.float32]

LIP_CROP = 64  # pixels of the net's crop, the square around the mouth that is painted
LIPS = GraphSpec(
    "lips",
    (TensorSpec("crop", (BATCH, LIP_CROP, LIP_CROP, 3), "uint8"),),
    (TensorSpec("seen", (BATCH, 1)),),
    precision="f32",
)
HIDDEN = 0.25  # share of the lips that is seen, below which a portrait is refused
DOUBTFUL = 0.6  # and below which it is said
MAX_OUTSIDE = 0.05  # of the mouth's width that may lie beyond the picture's edge


def lip_crop(rgb: RgbImage, to_crop: Affine) -> RgbImage:
    """The square around the mouth of an image (H, W, 3) as (64, 64, 3); outside the image is black.

    Args:
        to_crop: `engine.face.landmarks.crop_transform` of the face.
    """
    back = invert(to_crop).astype(np.float64)
    scale = np.hypot(*back[:, 0]) / LIP_CROP  # image pixels a pixel of the crop
    shrink = max(1, int(scale * 0.75))
    image = Image.fromarray(rgb)
    if shrink > 1:
        image = image.reduce(shrink)
    matrix = back[:, :2] / LIP_CROP / shrink
    shift = back[:, 2] / shrink
    data = (*matrix[0], shift[0], *matrix[1], shift[1])
    size = (LIP_CROP, LIP_CROP)
    return np.asarray(
        image.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    )


class LipWatch:
    """Refuses portraits whose lips nobody can see."""

    def __init__(self, net: Graph) -> None:
        self._net = net

    def seen(self, rgb: RgbImage, to_crop: Affine) -> float:
        """The share of the lips that is seen in an image (H, W, 3), as the net takes it: in [0, 1]."""
        logit = self._net(crop=lip_crop(rgb, to_crop)[None])["seen"][0, 0]
        return float(1 / (1 + np.exp(-np.float64(logit))))

    def check(self, rgb: RgbImage, landmarks: F32, to_crop: Affine) -> str:
        """A remark on the lips of an image (H, W, 3) with landmarks (478, 2) in pixels, "" where all is well.

        Raises:
            PortraitRefused: `mouth_hidden`; they are covered or beyond the picture's edge.
        """
        if outside(landmarks, rgb.shape[1], rgb.shape[0]) > MAX_OUTSIDE:
            raise PortraitRefused(
                "mouth_hidden",
                "The mouth is cut off by the picture's edge. "
                "Please use a picture that shows the whole face.",
            )
        seen = self.seen(rgb, to_crop)
        if seen < HIDDEN:
            raise PortraitRefused(
                "mouth_hidden",
                "The mouth is covered. The lips have to be seen: "
                "please use a picture without a mask, a microphone or a hand before them.",
            )
        if seen < DOUBTFUL:
            return "Something may cover part of the mouth; the lips that are drawn may look wrong there."
        return ""


def outside(landmarks: F32, width: int, height: int) -> float:
    """How far the lips of landmarks (478, 2) reach beyond an image, in widths of the mouth."""
    lips = landmarks[[*OUTER_UPPER_LIP, *OUTER_LOWER_LIP]]
    beyond = np.maximum(np.maximum(-lips, lips - np.array([width, height])), 0).max()
    return float(beyond / max(float(np.linalg.norm(landmarks[61] - landmarks[291])), 1e-6))
