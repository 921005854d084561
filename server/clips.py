"""What passes between microphone, engine and tracks: sound going in, frames with their sound coming out."""

from __future__ import annotations

from dataclasses import dataclass

from engine.types import RgbImage
from server.beeps import Beep
from server.intake import Pcm48


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some sound on its way to the engine; times are monotonic."""

    pcm: Pcm48
    generation: int
    arrived: float | None  # its packet came; None for silence of our own
    queued: float


@dataclass(frozen=True, slots=True)
class Clip:
    """A finished frame and the sound that belongs to it."""

    index: int
    rgb: RgbImage
    sound: Pcm48  # (48000 // fps,)
    generation: int
    made: float
    queued_s: float = 0.0  # how long the chunk that completed it waited for the engine
    step_s: float = 0.0
    beep: Beep | None = None
    fresh: bool = True  # False: the frame before it again, only the sound is new
