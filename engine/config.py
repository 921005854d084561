"""Settings of the engine as frozen data; a profile is a value of `EngineConfig`, not a code path."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.errors import ConfigError

T = TypeVar("T")
WEIGHTS = Path(__file__).parent / "weights"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """Time base of the stream; every other length is derived from these three."""

    sample_rate_hz: int = 16_000
    fps: int = 25
    lookahead_frames: int = 2  # frames of sound heard before a frame's mouth is decided

    def __post_init__(self) -> None:
        if self.sample_rate_hz % self.fps:
            raise ConfigError(
                f"sample_rate_hz={self.sample_rate_hz} is not a multiple of fps={self.fps}; "
                "a video frame must cover a whole number of samples"
            )

    @property
    def hop_samples(self) -> int:
        """PCM samples per video frame."""
        return self.sample_rate_hz // self.fps

    @property
    def frame_ms(self) -> float:
        """Duration of one video frame in milliseconds."""
        return 1000 / self.fps


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything the engine needs to know before it loads."""

    profile: str = "tiny"
    weights: Path = WEIGHTS / "tiny"
    backend: Literal["openvino", "onnxruntime"] = "openvino"
    threads: int = 2  # CPU threads of one graph
    steps: int = 1  # denoising steps per painted frame
    paint_every: int = 3  # frames; those between carry the last painted window along
    max_side: int = 512  # longer portraits are scaled down to this many pixels
    stream: StreamConfig = StreamConfig()

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 50:
            raise ConfigError(
                f"steps={self.steps} is out of range; 1 to 50 denoising steps a frame"
            )
        if not 1 <= self.paint_every <= 5:
            raise ConfigError(f"paint_every={self.paint_every} is out of range; 1 to 5 frames")
        if not 128 <= self.max_side <= 2048:
            raise ConfigError(f"max_side={self.max_side} is out of range; 128 to 2048 pixels")
        if self.threads < 1:
            raise ConfigError(f"threads={self.threads}: a graph needs at least one")


def from_mapping(cls: type[T], raw: Mapping[str, Any]) -> T:
    """Build dataclass `cls` from `raw`, refusing keys it does not have.

    Raises:
        ConfigError: an unknown key, with the nearest known one.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown key {key!r} in {cls.__name__}{hint}")
    return cls(**raw)
