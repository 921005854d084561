"""One portrait -> an identity: read the face, work out its neutral, prepare the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import ConfigError
from engine.face import arkit
from engine.face.detector import SCORE_NAMES, FaceReader
from engine.face.landmarks import crop_transform
from engine.motion.expression_shapes import face_shapes
from engine.motion.retarget import FaceBasis, neutral_face
from engine.render.base import Portrait, Renderer, SeveralPortraits
from engine.types import RgbImage

F32 = NDArray[np.float32]
_COLUMNS = [SCORE_NAMES.index(n) if n in SCORE_NAMES else -1 for n in arkit.NAMES]


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled portrait. Read-only, shared by every stream that shows it."""

    face: Any  # what the renderer enrolled
    neutral: F32  # (478, 2) crop units, mouth closed
    span: float  # inter-ocular distance in crop units
    shapes: F32  # (52, 478, 2) what an expression's coefficients move, see `engine.motion.expression_shapes`

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        size: tuple[int, int] = self.face.size
        return size


def fit_size(rgb: RgbImage, max_side: int) -> RgbImage:
    """Scale an image (H, W, 3) down to at most `max_side` pixels a side.

    Returns:
        (h, w, 3) with even sides, as video encoders want; the image itself where it fits already.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    target = [max(2, round(side * scale) // 2 * 2) for side in (width, height)]
    if target == [width, height]:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(target, Image.Resampling.LANCZOS))


def read_portrait(image: RgbImage, reader: FaceReader, max_side: int) -> tuple[Portrait, F32]:
    """Find the face of an image (H, W, 3); returns the portrait and its coefficients (52,).

    Raises:
        PortraitRefused: there is not exactly one usable face.
    """
    read = reader.read(image)
    rgb = fit_size(image, max_side)
    scale = np.array([rgb.shape[1] / image.shape[1], rgb.shape[0] / image.shape[0]], np.float32)
    landmarks = read.landmarks * scale
    scores = np.append(read.scores, 0)[_COLUMNS].astype(np.float32)
    return Portrait(rgb, landmarks, crop_transform(landmarks)), scores


def enroll(
    image: RgbImage,
    *,
    reader: FaceReader,
    renderer: Renderer[Any, Any],
    basis: FaceBasis,
    max_side: int,
    more: Sequence[RgbImage] = (),
    mixed: Sequence[tuple[RgbImage, float]] = (),
) -> Identity:
    """Enrol a person from portraits (H, W, 3); the first one is what the face moves from.

    Raises:
        PortraitRefused: there is not exactly one usable face in each.
        ConfigError: the renderer draws from one portrait only.
    """
    portrait, scores = read_portrait(image, reader, max_side)
    further = [read_portrait(rgb, reader, max_side)[0] for rgb in more]
    others = [(read_portrait(rgb, reader, max_side)[0], share) for rgb, share in mixed]
    source = portrait.source
    span = float(np.linalg.norm(source[33] - source[263]))
    neutral = neutral_face(source, scores, basis)
    shapes = face_shapes(neutral, basis.basis[arkit.index("jawOpen")])
    if isinstance(renderer, SeveralPortraits):
        face = renderer.enroll_several([portrait, *further], others)
    elif further or others:
        raise ConfigError("the tiny profile draws from one portrait; use --profile sd15")
    else:
        face = renderer.enroll(portrait)
    return Identity(face, neutral, span, shapes)
