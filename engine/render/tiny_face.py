"""What the tiny renderer keeps: of a portrait, and from one frame to the next; and how a head lies in a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.backends import Tensor
from engine.face.landmarks import Affine, apply, crop_transform, invert, similarity
from engine.face.topology import STABLE
from engine.render.base import FrameCondition, Portrait
from engine.render.compositing import Composite
from engine.render.eyelids import Eye
from engine.render.paint_colours import PaintColours

F32 = NDArray[np.float32]
# Pixels of the longer side of frames that are drawn at half their size too: smaller ones show no lips then, larger
# ones are made offline, where nobody waits.
HALVED = (320, 1080)


@dataclass(frozen=True, slots=True)
class TinyFace:
    """A portrait enrolled for drawing; tensors are handles of the backend."""

    crop: Tensor  # (1, 3, 128, 128) in [-1, 1]
    source: Tensor  # (1, 478, 2) landmarks in crop units
    lines: Tensor  # (1, 6, 32, 32) maps of them
    steady: F32  # (N, 2) those of them that stay with the head whatever the face does
    kept: dict[str, Tensor]  # latents, identity, reference keys/values
    composite: Composite
    lids: tuple[Eye, Eye]  # right, left
    colours: PaintColours | None = None  # of painted crops; None leaves them as they are
    half: TinyFace | None = None  # for frames of half the size

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        height, width = self.composite.maps.rgb.shape[:2]
        return height, width


@dataclass(frozen=True, slots=True)
class FrameCache:
    """What a frame hands to the next: its latents and keys/values of the last denoising step.

    `patch` and `level` are the last painted crop and the landmarks it was painted for.
    """

    latents: Tensor  # (1, 16, 32, 32)
    keys: tuple[Tensor, ...]
    patch: Tensor | None = None  # (1, 4, 128, 128)
    level: F32 | None = None  # (1, 478, 2)


def halved(portrait: Portrait) -> Portrait:
    """The portrait half as wide and high, its sides even as video encoders want."""
    height, width = portrait.rgb.shape[:2]
    size = [max(2, round(side / 4) * 2) for side in (width, height)]
    scale = np.array([size[0] / width, size[1] / height], np.float32)
    landmarks = np.asarray(portrait.landmarks * scale, np.float32)
    alpha, matte = portrait.alpha, portrait.matte
    return Portrait(
        _resized(portrait.rgb, size),
        landmarks,
        crop_transform(landmarks),
        None if alpha is None else _resized(alpha, size),
        None if matte is None else _resized(matte, size),
    )


def _resized(picture: NDArray[Any], size: list[int]) -> NDArray[Any]:
    return np.asarray(Image.fromarray(picture).resize((size[0], size[1]), Image.Resampling.BOX))


def lay_head(face: TinyFace, condition: FrameCondition) -> tuple[Affine, F32]:
    """How the head lies in a frame, and the frame's landmarks (1, 478, 2) were it not for that.

    The crop is painted for these: a mouth is where the network has learnt to see it, wherever the head is.
    """
    head = similarity(face.steady, condition.target[list(STABLE)])
    return head, apply(invert(head), condition.target)[None]
