"""Speech context of a frame: the features until it is decided, for nets that take them directly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.motion.decoder import FRAMES, LOOKAHEAD

F32 = NDArray[np.float32]
HEARD = 16  # feature frames of 20 ms, as many as DiffTalk's


def decided(frame: int) -> int:
    """Feature frames after which frame `frame` is decided."""
    return FRAMES * (frame + 1 + LOOKAHEAD)


def window(features: F32, frame: int, first: int = 0) -> F32:
    """The last features (16, W) that frame `frame` is decided with.

    Args:
        features: (T, W), of which row 0 is feature frame `first` of the stream. Before the stream
            all is zero; after its end the last row stays.
    """
    rows = np.arange(decided(frame) - HEARD, decided(frame))
    kept = features[np.clip(rows - first, 0, len(features) - 1)]
    return np.where((rows >= 0)[:, None], kept, np.float32(0))


@dataclass(slots=True)
class SpeechContext:
    """The end of a stream's features: the context of frames to come."""

    features: F32  # (T, W)
    first: int = 0  # number of row 0 in the stream

    def push(self, features: F32, next_frame: int) -> None:
        """Add features (N, W), and forget what is in no context from `next_frame` on."""
        drop = min(max(0, decided(next_frame) - HEARD - self.first), len(self.features))
        self.features = np.concatenate([self.features[drop:], features])
        self.first += drop

    def at(self, frame: int) -> F32:
        """Speech context (16, W) of frame `frame`."""
        return window(self.features, frame, self.first)
