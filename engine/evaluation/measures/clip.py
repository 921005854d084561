"""A video as it is measured: its frames at 25 a second and its sound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from engine.audio.sound_file import read_audio
from engine.config import FPS, HOP_SAMPLES
from engine.errors import DataError, MediaError

LONGEST_S = 120.0  # a bound on memory: at 512 x 512 two minutes are 2.4 GB


@dataclass(frozen=True)
class Clip:
    """One video.

    Attributes:
        frames: (T, H, W, 3) RGB.
        rate_hz: frames a second.
        sound: (N,) 16 kHz mono; None where the file has none.
        notes: what was done to it in reading, in words.
        words: what is said, where it is known: it is needed to find p, b and m.
    """

    frames: NDArray[np.uint8]
    rate_hz: float
    sound: NDArray[np.float32] | None
    notes: tuple[str, ...] = field(default=())
    words: str | None = None

    @cached_property
    def key(self) -> str:
        """SHA-256 of the pictures alone."""
        digest = hashlib.sha256(str(self.frames.shape).encode())
        digest.update(np.ascontiguousarray(self.frames).data)
        return digest.hexdigest()

    def after(self, first: int) -> Clip:
        """The clip from frame `first` on."""
        sound = None if self.sound is None else self.sound[first * HOP_SAMPLES :]
        return replace(self, frames=self.frames[first:], sound=sound) if first else self

    @classmethod
    def read(cls, path: Path, *, words: str | None = None, longest_s: float = LONGEST_S) -> Clip:
        """Decode a video; frames at another rate are taken at 25 a second by their time.

        Raises:
            DataError: no such file, no video, damaged, or longer than `longest_s`.
        """
        path, notes = Path(path), []
        try:
            frames, rate = _frames(path, longest_s)
        except (FFmpegError, OSError) as error:
            raise DataError(f"{path.name} cannot be read as a video: {error}") from error
        if abs(rate - FPS) > 0.01:
            notes.append(f"{rate:.5g} frames a second, taken at {FPS} by their time")
        sound = None
        try:
            sound = read_audio(path, longest_s=longest_s + 1)
        except MediaError as error:
            notes.append(f"no sound: {error}")
        return cls(frames, float(FPS), sound, tuple(notes), words)


def _frames(path: Path, longest_s: float) -> tuple[NDArray[np.uint8], float]:
    """Frames (T, H, W, 3) at 25 a second, each the one shown at the middle of its time; the file's rate."""
    kept: list[NDArray[np.uint8]] = []
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise DataError(f"{path.name} has no picture")
        container.streams.video[0].thread_type = "AUTO"
        rate = float(container.streams.video[0].average_rate or FPS)
        for start, end, rgb in _shown(container, 1 / rate):
            while (len(kept) + 0.5) / FPS < end:
                if (len(kept) + 0.5) / FPS < start and kept:
                    break
                kept.append(rgb)
            if len(kept) > longest_s * FPS:
                raise DataError(
                    f"{path.name} is longer than {longest_s:.0f} s; measure parts of it"
                )
    if not kept:
        raise DataError(f"{path.name} has no frames")
    if any(f.shape != kept[0].shape for f in kept):
        raise DataError(f"{path.name} changes its size while it plays")
    return np.stack(kept), rate


def _shown(
    container: av.container.InputContainer, usual: float
) -> Iterator[tuple[float, float, NDArray[np.uint8]]]:
    """From when to when each frame (H, W, 3) is shown, in seconds from the first."""
    first, before = None, None
    for frame in container.decode(video=0):
        at = 0.0 if frame.time is None else float(frame.time)
        first = at if first is None else first
        if before is not None:
            yield before[0], at - first, before[1]
        before = at - first, np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    if before is not None:
        yield before[0], before[0] + usual, before[1]
