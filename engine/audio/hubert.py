"""The public HuBERT as a streaming speech encoder: windows on a fixed grid, of each its middle kept.

HuBERT looks both ways, its positional convolution spans 2.5 s, and the base model's group norm takes
its statistics over time, so features depend on the window they were computed in. Windows of one length
that start only at multiples of the hop make that a fixed function of the sound: how the stream was
cut cannot matter, and nothing later than `ahead` frames is ever used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import ConfigError

F32 = NDArray[np.float32]
STRIDE, FIELD = 320, 400  # samples between two frames, and under one (16 kHz)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubertWindow:
    """A window in frames of 20 ms: context before, what is kept, look-ahead."""

    left: int = 100  # 2 s
    hop: int = 8  # 160 ms, four video frames
    ahead: int = 4  # 80 ms

    def __post_init__(self) -> None:
        if self.left < 0 or self.ahead < 0 or self.hop < 2 or self.hop % 2:
            raise ConfigError(
                f"left={self.left}, hop={self.hop}, ahead={self.ahead}: wanted left and ahead of "
                "at least 0 and an even hop, a video frame being two frames of 20 ms"
            )


@dataclass(slots=True)
class ChunkState:
    """The sound of one stream that windows to come still need, (N,) at 16 kHz."""

    held: F32


class ChunkedHubert:
    """Runs a `transformers.HubertModel` (base, large or any size) over a stream.

    Args:
        model: the loaded network, in evaluation mode.
        normalise: give each window zero mean and unit variance first, as the public feature
            extractors of both models do to a whole file.

    Law:
        Frame k depends only on the samples before 320 * (hop * (k // hop + 1) + ahead) + 80,
        however they were cut.
    """

    def __init__(
        self, model: Any, window: HubertWindow | None = None, *, normalise: bool = True
    ) -> None:
        self.window = window or HubertWindow()
        self.width = int(model.config.hidden_size)
        self._model, self._normalise = model, normalise

    def start(self) -> ChunkState:
        """State of a new stream; before it there was silence."""
        return ChunkState(np.zeros(self.window.left * STRIDE, np.float32))

    def step(self, state: ChunkState, pcm: F32) -> F32:
        """Take `pcm` (N,) at 16 kHz; return the features (hop * windows completed, width).

        Raises:
            ValueError: `pcm` is not float32 of one dimension.
        """
        if pcm.ndim != 1 or pcm.dtype != np.float32:
            raise ValueError(f"wants float32 of shape (N,), got {pcm.dtype} of shape {pcm.shape}")
        w = self.window
        size = (w.left + w.hop + w.ahead) * STRIDE + FIELD - STRIDE
        state.held = np.concatenate([state.held, pcm])
        features = [np.zeros((0, self.width), np.float32)]
        while len(state.held) >= size:
            features.append(self._encode(state.held[:size]))
            state.held = state.held[w.hop * STRIDE :]
        return np.concatenate(features)

    def step_many(self, streams: Sequence[tuple[ChunkState, F32]]) -> list[F32]:
        """`step` for several streams, one after another; the features (T, width) of each."""
        return [self.step(state, pcm) for state, pcm in streams]

    @torch.no_grad()
    def _encode(self, pcm: F32) -> F32:
        if self._normalise:
            pcm = (pcm - pcm.mean()) / np.sqrt(pcm.var() + 1e-7)
        frames = self._model(torch.from_numpy(pcm)[None]).last_hidden_state[0]
        w = self.window
        return np.asarray(frames[w.left : w.left + w.hop].numpy(), np.float32)
