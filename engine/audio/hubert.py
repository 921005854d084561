"""The public HuBERT as a streaming speech encoder: windows on a fixed grid, of each its middle kept.

HuBERT looks both ways, its positional convolution spans 2.5 s, and the base model's group norm takes
its statistics over time, so features depend on the window they were computed in. Windows of one length
that start only at multiples of the hop make that a fixed function of the sound: how the stream was
cut cannot matter, and nothing later than `ahead` frames is ever used. Every feature is given out
equally long after its sound, those of a window two by two, so that frames come evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.backends import BATCH, Graph, GraphSpec, TensorSpec
from engine.backends.base import rounds
from engine.config import FEATURES_PER_FRAME, HOP_SAMPLES
from engine.errors import ConfigError

F32 = NDArray[np.float32]
STRIDE, FIELD = 320, 400  # samples between two frames, and under one (16 kHz)
FRAME_MS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HubertWindow:
    """A window in frames of 20 ms: context before, what is kept, look-ahead.

    The context is what windows overlap by, and all of it is computed anew: half a second is what two
    cores carry at a hop of 160 ms (`benchmarks.hubert`).
    """

    left: int = 24  # 480 ms
    hop: int = 8  # 160 ms, four video frames
    ahead: int = 3  # 60 ms: with the 5 ms under the last frame just within whole video frames

    def __post_init__(self) -> None:
        if self.left < 0 or self.ahead < 0 or self.hop < 2 or self.hop % 2:
            raise ConfigError(
                f"left={self.left}, hop={self.hop}, ahead={self.ahead}: wanted left and ahead of "
                "at least 0 and an even hop, a video frame being two frames of 20 ms"
            )

    @property
    def samples(self) -> int:
        """Length of a window."""
        return (self.left + self.hop + self.ahead) * STRIDE + FIELD - STRIDE

    @property
    def delay(self) -> int:
        """Samples from the first one of a pair of features until it is given out."""
        return (self.hop + self.ahead) * STRIDE + FIELD - STRIDE


def window_of(hop_ms: int) -> HubertWindow:
    """The window that speech is heard in at a hop of `hop_ms`."""
    return HubertWindow(hop=hop_ms // FRAME_MS)


def hubert_spec(window: HubertWindow, width: int) -> GraphSpec:
    """Spec of the `hubert` graph: a window of sound in, the features of its middle out."""
    return GraphSpec(
        "hubert",
        (TensorSpec("window", (BATCH, window.samples)),),
        (TensorSpec("features", (BATCH, window.hop, width)),),
    )


@dataclass(slots=True)
class ChunkState:
    """What one stream remembers."""

    held: F32  # (N,) sound that windows to come still need
    waiting: F32  # (T, width) features that are known and not yet given out
    samples: int = 0  # heard so far
    given: int = 0  # features given out so far


class ChunkedHubert:
    """Runs the `hubert` graph over a stream.

    Args:
        graph: takes windows of `window`; see `hubert_spec`.

    Law:
        Frames 2 k and 2 k + 1 are given out when 640 k + `window.delay` samples were heard, and
        depend on none after, however they were cut.
    """

    def __init__(self, graph: Graph, window: HubertWindow) -> None:
        self.window = window
        self.width = int(graph.spec.outputs[0].shape[-1])
        self._graph = graph

    def start(self) -> ChunkState:
        """State of a new stream; before it there was silence."""
        before = np.zeros(self.window.left * STRIDE, np.float32)
        return ChunkState(before, np.zeros((0, self.width), np.float32))

    def step(self, state: ChunkState, pcm: F32) -> F32:
        """Take `pcm` (N,) at 16 kHz; return the features (T, width) that are due, an even number.

        Raises:
            ValueError: `pcm` is not float32 of one dimension.
        """
        return self.step_many([(state, pcm)])[0]

    def step_many(self, streams: Sequence[tuple[ChunkState, F32]]) -> list[F32]:
        """`step` for several streams, window by window together; the features (T, width) of each.

        Raises:
            ValueError: as `step`.
        """
        windows = [self._push(state, pcm) for state, pcm in streams]
        for turn, due in rounds([len(own) for own in windows]):
            made = self._graph.each([{"window": windows[i][turn][None]} for i in due])
            for i, out in zip(due, made, strict=True):
                state = streams[i][0]
                state.waiting = np.concatenate([state.waiting, np.asarray(out["features"])[0]])
        return [self._give(state) for state, _ in streams]

    def _push(self, state: ChunkState, pcm: F32) -> list[F32]:
        """The windows (samples,) that `pcm` completed."""
        if pcm.ndim != 1 or pcm.dtype != np.float32:
            raise ValueError(f"wants float32 of shape (N,), got {pcm.dtype} of shape {pcm.shape}")
        state.samples += len(pcm)
        state.held = np.concatenate([state.held, pcm])
        made = []
        while len(state.held) >= self.window.samples:
            made.append(state.held[: self.window.samples])
            state.held = state.held[self.window.hop * STRIDE :]
        return made

    def _give(self, state: ChunkState) -> F32:
        frames = max(0, (state.samples - self.window.delay) // HOP_SAMPLES + 1)
        count = FEATURES_PER_FRAME * frames - state.given
        out, state.waiting = state.waiting[:count], state.waiting[count:]
        state.given += count
        return out
