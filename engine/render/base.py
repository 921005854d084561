"""What an engine asks of a renderer: a portrait in, frames out, what one frame hands to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.config import Strengths
from engine.face.landmarks import Affine, apply
from engine.types import RgbImage

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Portrait:
    """A portrait whose face was read; what every renderer enrols."""

    rgb: RgbImage  # (H, W, 3)
    landmarks: F32  # (478, 2) pixels
    to_crop: Affine  # pixels -> crop units
    alpha: NDArray[np.uint8] | None = None  # (H, W) of what `rgb` shows on grey; None: opaque
    matte: F32 | None = None  # (H, W) how much of each pixel is the person; None: nobody knows

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
    words: Any = None  # of the prompt, where the renderer reads any
    speech: F32 | None = None  # (16, W) features, where the renderer is conditioned on speech
    steps: int = 0  # of denoising, where the renderer takes several; 0: as it is set
    coefficients: F32 | None = None  # (52,) that led to the landmarks
    strengths: Strengths = Strengths()  # of its conditions, where the renderer weighs any


class EnrolledFace(Protocol):
    """What a renderer made of a portrait. Read-only, shared by every stream that shows it."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""

    @property
    def half(self) -> Any:
        """The same face for frames of half the size, to be drawn with the same caches; None: there is none."""


Face = TypeVar("Face", bound=EnrolledFace)
Cache = TypeVar("Cache")


class Renderer(Protocol[Face, Cache]):
    """The part of an engine that draws. A face is read-only, a cache belongs to one stream.

    Attributes:
        carries: frames between two painted ones move with the head and the lips; else they repeat.

    Law:
        A frame depends on its own face, cache and condition alone, whoever is drawn beside it.
    """

    carries: bool

    def read_words(self, text: str, others: tuple[str, ...]) -> Any:
        """Read a prompt, of which `others` are no expressions; raises `PromptRefused`.

        What it returns comes back as `FrameCondition.words`.
        """

    def enroll(self, portrait: Portrait) -> Face:
        """Run the once-a-portrait part."""

    def noise(self, seed: int) -> Any:
        """Draw the noise of a stream, which comes back as `FrameCondition.noise`."""

    def cold(self, face: Face) -> Cache:
        """Make the cache before the first frame."""

    def draw(
        self, jobs: Sequence[tuple[Face, Cache, FrameCondition]]
    ) -> list[tuple[RgbImage, Cache]]:
        """Draw one frame of each of several streams afresh: (H, W, 3), and the cache for the next.

        A renderer that moves the alpha of a portrait along makes such frames (H, W, 4).
        """

    def draw_between(
        self, jobs: Sequence[tuple[Face, Cache, FrameCondition]]
    ) -> list[RgbImage | None]:
        """Draw one frame (H, W, 3) of each stream by moving the last one that was drawn afresh.

        None where the renderer moves nothing: the frame before is to be shown again.

        Raises:
            ValueError: nothing was drawn afresh before.
        """

    def pack(self, cache: Cache) -> dict[str, NDArray[Any]]:
        """Lay a cache out as arrays, from which `unpack` makes the same cache again."""

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> Cache:
        """Undo `pack`."""


@runtime_checkable
class SeveralPortraits(Protocol):
    """A renderer that also draws a person from several portraits, or on the way to other people."""

    def enroll_several(
        self, own: Sequence[Portrait], mixed: Sequence[tuple[Portrait, float]] = ()
    ) -> EnrolledFace:
        """Enrol a person from portraits, the first of which is moved, shares of others `mixed` in.

        Raises:
            ConfigError: the shares leave nothing of the person.
        """


class FusedVideo(Protocol):
    """A whole video whose frames are sampled together, piece by piece; it can be stopped and resumed."""

    total: int  # pieces until `frame` may be asked

    @property
    def done(self) -> int:
        """Pieces so far."""

    def work(self) -> None:
        """Do one piece or some."""

    def frame(self, index: int) -> RgbImage:
        """Decode one frame (H, W, 3)."""

    def pack(self) -> dict[str, NDArray[Any]]:
        """Lay all that was done out as arrays."""

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """Undo `pack`."""


@runtime_checkable
class FusesVideo(Protocol):
    """A renderer that can also sample all frames of a video together (progressive latent fusion)."""

    def fuse(self, face: Any, conditions: Sequence[FrameCondition]) -> FusedVideo:
        """Begin a video of one frame for each of `conditions`."""
