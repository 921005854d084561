"""Frames of a portrait that is partly transparent: laid on a background, or kept transparent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engine.face.image_colour import GREY
from engine.types import RgbImage

_FAINT = 16  # alpha below which colours are too uncertain to be told from the grey they lie on


def fitted(background: RgbImage, height: int, width: int) -> RgbImage:
    """A background (h, w, 3) of any size, filled into (height, width, 3)."""
    image = ImageOps.fit(Image.fromarray(background), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def laid_on(frame: RgbImage, background: RgbImage) -> RgbImage:
    """A frame (H, W, 4), whose colours lie on grey, on `background` (H, W, 3) instead: (H, W, 3)."""
    through = 255 - frame[..., 3:].astype(np.int32)
    behind = background.astype(np.int32) - np.array(GREY, np.int32)
    laid = frame[..., :3] + (through * behind + 127) // 255
    return np.clip(laid, 0, 255).astype(np.uint8)


def lifted(frame: RgbImage) -> RgbImage:
    """A frame (H, W, 4), whose colours lie on grey, with its own colours, as files hold them."""
    colours: NDArray[np.float32] = frame[..., :3].astype(np.float32) - np.array(GREY, np.float32)
    own = np.array(GREY, np.float32) + colours * (
        np.float32(255) / np.maximum(frame[..., 3:], _FAINT)
    )
    return np.dstack([np.clip(own + 0.5, 0, 255).astype(np.uint8), frame[..., 3]])
