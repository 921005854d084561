"""What an engine asks of a renderer: a portrait in, frames out, what one frame hands to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.face.landmarks import Affine, apply
from engine.types import RgbImage

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Portrait:
    """A portrait whose face was read; what every picture part enrols."""

    rgb: RgbImage  # (H, W, 3)
    landmarks: F32  # (478, 2) pixels
    to_crop: Affine  # pixels -> crop units

    @property
    def source(self) -> F32:
        """Landmarks (478, 2) in crop units."""
        return apply(self.to_crop, self.landmarks)


@dataclass(frozen=True, slots=True)
class FrameCondition:
    """What one frame is to show."""

    target: F32  # landmarks (478, 2) in crop units, eyes open
    blink: F32  # (2,) how far the right and the left eye close, in [0, 1]
    placement: F32  # (6,) head pose
    noise: Any  # of the stream
    index: int = 0  # of the frame
    words: Any = None  # of the prompt, where the picture part reads any
    speech: F32 | None = None  # (16, W) features, where the picture part listens itself


class FusedVideo(Protocol):
    """A whole video whose frames are sampled together, piece by piece; it can be stopped and gone on
    with.
    """

    total: int  # pieces until `frame` may be asked

    @property
    def done(self) -> int:
        """Pieces so far."""

    def work(self) -> None:
        """Do one piece."""

    def frame(self, index: int) -> RgbImage:
        """Decode one frame."""

    def pack(self) -> dict[str, NDArray[Any]]:
        """Lay all that was done out as arrays."""

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """Undo `pack`."""


class Renderer(Protocol):
    """The part of an engine that draws; all it is given but the last frame's cache is read-only.

    A face and a cache are opaque to the caller. `words` is what `read_words` made of the prompt.
    """

    def read_words(self, text: str, others: tuple[str, ...]) -> Any:
        """Read a prompt, of which `others` are no expressions; raises `PromptRefused`."""

    def enroll(
        self,
        portrait: Portrait,
        more: Sequence[Portrait] = (),
        mixed: Sequence[tuple[Portrait, float]] = (),
    ) -> Any:
        """Run the once-a-portrait part; `more` of the same person, shares of others `mixed` in.

        Raises:
            ConfigError: it draws from one portrait only, or the shares leave nothing of the person.
        """

    def noise(self, seed: int) -> Any:
        """Draw the noise of a stream."""

    def cold(self, face: Any) -> Any:
        """Make the cache before the first frame."""

    def draw(self, face: Any, cache: Any, condition: FrameCondition) -> tuple[RgbImage, Any]:
        """Draw one frame afresh; returns it and the cache for the next."""

    def draw_between(self, face: Any, cache: Any, condition: FrameCondition) -> RgbImage:
        """Draw one frame by moving the last one that was drawn afresh."""

    def film(self, face: Any, conditions: Sequence[FrameCondition]) -> FusedVideo:
        """Begin a video whose frames are sampled together.

        Raises:
            ConfigError: it draws frame after frame only.
        """

    def pack(self, cache: Any) -> dict[str, NDArray[Any]]:
        """Lay a cache out as arrays, from which `unpack` makes the same cache again."""

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> Any:
        """Undo `pack`."""
