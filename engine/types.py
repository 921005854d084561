"""What crosses the engine's border. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.config import EngineConfig

Pcm = NDArray[np.float32]  # (N,) mono in [-1, 1]
RgbImage = NDArray[np.uint8]  # (H, W, 3)
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceMotion:
    """How the face moves in one frame, for who draws a head of their own."""

    coefficients: F32  # (52,) ARKit's, in [0, 1], in the order of `engine.face.arkit.NAMES`
    pose: F32  # (6,) yaw, pitch, roll in rad; x, y in distances between the eyes; log of the scale
    parted: float  # the lips of the picture: their gap over the face height


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One finished picture. Frame `index` shows samples [index * hop, (index + 1) * hop)."""

    index: int
    rgb: RgbImage  # (H, W, 3), see `Quality.half`; of a portrait with alpha (H, W, 4), laid on grey
    fresh: bool = True  # False: the picture before it, shown again
    motion: FaceMotion | None = None  # None: it comes from a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What the frames of one stream may cost."""

    paint_every: int = 0  # frames from one painted mouth to the next; 0: as the engine is set
    draw_every: int = 1  # frames from one drawn picture to the next; those between repeat it
    half: bool = False  # half as wide and high, where the portrait is large enough for it
    steps: int = 0  # of denoising a painted frame, in the sd15 profile; 0: as the engine is set


@dataclass(frozen=True, slots=True)
class PortraitReport:
    """What enrolling a portrait has to say, beside that it worked."""

    notices: tuple[str, ...] = ()  # sentences for people
    # Left, top, right, bottom of every face that could talk, from left to right, as shares of the picture.
    faces: tuple[tuple[float, float, float, float], ...] = ()
    face: int = 1  # the one that talks, counted from 1


class Engine(Protocol):
    """What a server needs of an engine; `engine.avatar.AvatarEngine` is the one implementation.

    Identities and states are opaque to the caller. An identity is read-only and shared; a state
    belongs to one stream and is only ever touched by one thread at a time.
    """

    @property
    def config(self) -> EngineConfig:
        """The settings the engine was loaded with."""

    def enroll(self, image: RgbImage, *, face: int | None = None) -> Any:
        """Make an identity from a portrait (H, W, 3); raises `PortraitRefused`.

        `face` counts from the left, from 1; the largest one talks without it.
        May run beside the other calls, on a thread of its own; only one at a time.
        """

    def report(self, identity: Any) -> PortraitReport:
        """What enrolling this identity had to say."""

    def start(self, identity: Any, *, seed: int = 0) -> Any:
        """Make the state of a new stream."""

    def read_prompt(self, text: str) -> Any:
        """Read the words of a prompt; raises `PromptRefused`. `str()` gives its shortest form."""

    def set_prompt(self, state: Any, prompt: Any, *, at: int | None = None) -> None:
        """Change what a stream expresses from frame `at` on, or from its next frame.

        `prompt` may also be `engine.config.Strengths`: what each condition counts.
        """

    def set_identity(self, state: Any, identity: Any) -> None:
        """Show another portrait in a stream from its next frame on."""

    def settle(self, state: Any) -> None:
        """The speaker was cut off: close the mouth from the next frame on, until speech begins anew."""

    def set_quality(self, state: Any, quality: Quality) -> None:
        """Draw the frames of a stream at another quality from the next one on."""

    def step_many(self, streams: Sequence[tuple[Any, Pcm]]) -> list[list[VideoFrame]]:
        """Take 16 kHz PCM (N,) for each of several streams and return the frames each completed.

        The frames of a stream do not depend on the others. `config.engine_threads` threads may call it
        at the same time, each for streams that the others leave alone.
        """

    def flush(self, state: Any) -> list[VideoFrame]:
        """Return the frames still held back by the look-ahead, as if silence followed."""
