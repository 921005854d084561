"""Will the mouth of a portrait do? Geometry for the picture's edge, a small net for what covers the lips or gapes.

The landmarks cannot tell: they are put on a mask as well, and no mouth is wide open to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.backends import BATCH, Graph, GraphSpec, TensorSpec
from engine.errors import PortraitRefused
from engine.face.landmarks import Affine, crop_transform, invert, lip_gap
from engine.face.topology import OUTER_LOWER_LIP, OUTER_UPPER_LIP
from engine.types import RgbImage

F32 = NDArray[np.float32]

LIP_CROP = 64  # pixels of the net's crop, the square around the mouth that is painted
LIPS = GraphSpec(
    "lips",
    (TensorSpec("crop", (BATCH, LIP_CROP, LIP_CROP, 3), "uint8"),),
    (TensorSpec("seen", (BATCH, 1)), TensorSpec("gap", (BATCH, 1))),
    precision="f32",
)
HIDDEN = 0.25  # share of the lips that is seen, below which a portrait is refused
DOUBTFUL = 0.6  # and below which it is said
GAPES = (
    0.10  # lip gap over face height beyond that of the landmarks, above which a portrait is refused
)
PARTED = 0.06  # and above which it is said
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


@dataclass(frozen=True, slots=True)
class Lips:
    """What the net takes a mouth for."""

    seen: float  # share of the lips that is seen, in [0, 1]
    gap: float  # between the inner lips, over the face's height


class LipWatch:
    """Refuses portraits whose mouth cannot talk well."""

    def __init__(self, net: Graph) -> None:
        self._net = net

    def look(self, rgb: RgbImage, to_crop: Affine) -> Lips:
        """Look at the mouth of an image (H, W, 3)."""
        out = self._net(crop=lip_crop(rgb, to_crop)[None])
        seen, gap = (float(out[name][0, 0]) for name in ("seen", "gap"))
        return Lips(1 / (1 + math.exp(-max(seen, -50.0))), gap)

    def check(self, rgb: RgbImage, landmarks: F32) -> str:
        """A remark on the mouth of an image (H, W, 3) with landmarks (478, 2) in pixels; "" if it will do.

        Raises:
            PortraitRefused: `mouth_hidden`, covered or beyond the picture's edge; `mouth_open`, so wide
                that it cannot be closed.
        """
        if outside(landmarks, rgb.shape[1], rgb.shape[0]) > MAX_OUTSIDE:
            raise PortraitRefused(
                "mouth_hidden",
                "The mouth is cut off by the picture's edge. "
                "Please use a picture that shows the whole face.",
            )
        lips = self.look(rgb, crop_transform(landmarks))
        if lips.seen < HIDDEN:
            raise PortraitRefused(
                "mouth_hidden",
                "The mouth is covered. The lips have to be seen: "
                "please use a picture without a mask, a microphone or a hand before them.",
            )
        unseen = lips.gap - float(lip_gap(landmarks))
        if lips.seen >= DOUBTFUL and unseen > GAPES:
            raise PortraitRefused(
                "mouth_open",
                "The mouth is wide open and cannot be closed; this picture will not do. "
                "Please use one with the mouth closed or smiling.",
            )
        if lips.seen < DOUBTFUL:
            return "Something may cover part of the mouth; the lips that are drawn may look wrong."
        if unseen > PARTED:
            return "The mouth is wide open and may not close all the way; closed lips do better."
        return ""


def outside(landmarks: F32, width: int, height: int) -> float:
    """How far the lips of landmarks (478, 2) reach beyond an image, in widths of the mouth."""
    lips = landmarks[[*OUTER_UPPER_LIP, *OUTER_LOWER_LIP]]
    beyond = np.maximum(np.maximum(-lips, lips - np.array([width, height])), 0).max()
    return float(beyond / max(float(np.linalg.norm(landmarks[61] - landmarks[291])), 1e-6))
