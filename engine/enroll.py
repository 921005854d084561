"""One portrait -> an identity: read the face, work out its neutral, prepare the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import ConfigError
from engine.face import arkit
from engine.face.detector import MIN_FACE_PX, SCORE_NAMES, FaceReader
from engine.face.landmarks import crop_transform
from engine.face.lips import LipWatch
from engine.motion.expression_shapes import face_shapes
from engine.motion.retarget import FaceBasis, neutral_face
from engine.render.base import Portrait, Renderer, SeveralPortraits
from engine.types import PortraitReport, RgbImage

F32 = NDArray[np.float32]
_COLUMNS = [SCORE_NAMES.index(n) if n in SCORE_NAMES else -1 for n in arkit.NAMES]


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled portrait. Read-only, shared by every stream that shows it."""

    face: Any  # what the renderer enrolled
    neutral: F32  # (478, 2) crop units, mouth closed
    span: float  # inter-ocular distance in crop units
    shapes: F32  # (52, 478, 2) what an expression's coefficients move, see `engine.motion.expression_shapes`
    report: PortraitReport = PortraitReport()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        size: tuple[int, int] = self.face.size
        return size


def fitted_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Height and width of at most `max_side` pixels, both even, as video encoders want."""
    scale = min(1.0, max_side / max(height, width))
    rows, columns = (max(2, round(side * scale) // 2 * 2) for side in (height, width))
    return rows, columns


def fit_size(image: RgbImage, max_side: int) -> RgbImage:
    """Scale an image (H, W, ...) down to `fitted_size`; the image itself where it fits already."""
    height, width = fitted_size(image.shape[0], image.shape[1], max_side)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


@dataclass(frozen=True, slots=True)
class Enroller:
    """Makes identities: reads the face, works out its neutral, prepares the drawing."""

    reader: FaceReader
    lips: LipWatch
    renderer: Renderer[Any, Any]
    basis: FaceBasis
    max_side: int

    def enroll(
        self,
        image: RgbImage,
        *,
        face: int | None = None,
        alpha: NDArray[np.uint8] | None = None,
        more: Sequence[RgbImage] = (),
        mixed: Sequence[tuple[RgbImage, float]] = (),
    ) -> Identity:
        """Enrol a person from portraits (H, W, 3); the first one is what the face moves from.

        Args:
            face: which face of the first one, counted from the left; the largest without one.
            alpha: (H, W) of the first one, which lies on grey; frames have it where the renderer can.

        Raises:
            PortraitRefused: there is no usable face in one of them.
            ConfigError: the renderer draws from one portrait only.
        """
        portrait, scores, report = self._read(image, face)
        if alpha is not None:
            portrait = replace(portrait, alpha=fit_size(alpha, self.max_side))
        further = [self._read(rgb)[0] for rgb in more]
        others = [(self._read(rgb)[0], share) for rgb, share in mixed]
        source = portrait.source
        span = float(np.linalg.norm(source[33] - source[263]))
        neutral = neutral_face(source, scores, self.basis)
        shapes = face_shapes(neutral, self.basis.basis[arkit.index("jawOpen")])
        if isinstance(self.renderer, SeveralPortraits):
            if alpha is not None:
                raise ConfigError("sd15 draws no transparent frames; lay the portrait on something")
            made = self.renderer.enroll_several([portrait, *further], others)
        elif further or others:
            raise ConfigError("the tiny profile draws from one portrait; use --profile sd15")
        else:
            made = self.renderer.enroll(portrait)
        return Identity(made, neutral, span, shapes, report)

    def _read(
        self, image: RgbImage, number: int | None = None
    ) -> tuple[Portrait, F32, PortraitReport]:
        """Find the face of an image (H, W, 3): the portrait, its coefficients (52,), what there is to say."""
        height, width = image.shape[:2]
        reading = self.reader.read(image, number)
        read = reading.face
        mouth = self.lips.check(image, read.landmarks)
        rgb = fit_size(image, self.max_side)
        scale = np.array([rgb.shape[1] / width, rgb.shape[0] / height], np.float32)
        landmarks = read.landmarks * scale
        scores = np.append(read.scores, 0)[_COLUMNS].astype(np.float32)
        shares = [
            (left / width, top / height, right / width, bottom / height)
            for left, top, right, bottom in reading.boxes
        ]
        report = PortraitReport((), tuple(shares), reading.number)
        if number is None and len(shares) > 1:
            report = _with(
                report,
                f"{len(shares)} faces were found; the largest one talks, "
                f"number {reading.number} from the left.",
            )
        report = _with(report, mouth)
        if (side := read.side * float(scale.min())) < MIN_FACE_PX:
            report = _with(
                report,
                f"The face is only {side:.0f} pixels high in the {rgb.shape[1]}x{rgb.shape[0]} pixels "
                "that are drawn; cut the picture nearer to it.",
            )
        return Portrait(rgb, landmarks, crop_transform(landmarks)), scores, report


def _with(report: PortraitReport, remark: str) -> PortraitReport:
    """The report with one more sentence, if there is any."""
    return replace(report, notices=(*report.notices, remark)) if remark else report
