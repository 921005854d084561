"""What passes between inputs, engine and outlets: sound going in, pictures and speech coming out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from engine.types import FaceMotion, RgbImage
from engine.watermark.mark import Mark
from server.live.beeps import Beep
from server.live.yuv import Yuv, to_yuv
from server.sound.intake import Pcm48


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some sound on its way to the engine; times are monotonic.

    `place` is its first sample's on the session's line of sound. None: silence that is on no line
    and is heard at once, so that the engine lets go of what came before.
    """

    pcm: Pcm48
    place: int | None
    arrived: float | None  # its packet came; None for silence of our own
    queued: float


@dataclass(frozen=True)
class Picture:
    """A finished frame; its sound are the 40 ms that begin at `place` (None: it is to be shown at once)."""

    index: int
    rgb: RgbImage
    place: int | None
    made: float
    queued_s: float = 0.0  # how long the chunk that completed it waited for the engine
    step_s: float = 0.0
    beep: Beep | None = None
    fresh: bool = True  # False: the picture before it again
    motion: FaceMotion | None = None
    mark: Mark | None = None  # what `yuv` and `marked` carry; `rgb` does not

    @cached_property
    def yuv(self) -> Yuv:
        """The same for encoders, planes (3H/2, W); made once."""
        return to_yuv(self.rgb, self.mark)

    @cached_property
    def marked(self) -> RgbImage:
        """The same for programs, (H, W, 3); made once."""
        return self.rgb if self.mark is None else self.mark.on_rgb(self.rgb)


class Spoken(NamedTuple):
    """The samples `begin` to `end` of a packet of sound are of this utterance."""

    utterance: str
    begin: int
    end: int
