"""The speech encoder: sound in, speech features out, hop by hop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.audio.hop_buffer import HopBuffer
from engine.backends import Graph, GraphSpec, TensorSpec
from engine.config import FEATURES_PER_FRAME, HOP_SAMPLES

F32 = NDArray[np.float32]
HOP = HOP_SAMPLES
PAST = 576  # samples before a hop that the graph hears too
FRAMES = FEATURES_PER_FRAME
WIDTH = 616  # numbers in a feature frame: twice 288 of the encoder, 40 of the log-mel spectrum
SPEECH = GraphSpec(
    "speech",
    (
        TensorSpec("window", (1, PAST + HOP)),
        TensorSpec("level", (1, 1)),
        TensorSpec("pending", (1, 3, 288)),
        TensorSpec("keys", (6, 1, 48, 288)),
        TensorSpec("values", (6, 1, 48, 288)),
    ),
    (
        TensorSpec("features", (1, FRAMES, WIDTH)),
        TensorSpec("level_after", (1, 1)),
        TensorSpec("pending_after", (1, 3, 288)),
        TensorSpec("keys_after", (6, 1, 48, 288)),
        TensorSpec("values_after", (6, 1, 48, 288)),
    ),
    precision="f32",  # the spectrum's logarithm needs it
)
_SETTLE = 30  # hops of silence a new stream has heard


class SpeechEncoder(Protocol):
    """Sound in, speech features out; what one stream remembers is opaque to the caller.

    Law:
        A feature depends on the sound before some later sample alone, however it was cut.
    """

    width: int  # numbers in a feature frame

    def start(self) -> Any:
        """State of a new stream."""

    def step(self, state: Any, pcm: F32) -> F32:
        """Hear 16 kHz `pcm` (N,); the features (T, width) it completed, 50 a second."""


@dataclass(slots=True)
class SpeechState:
    """What one stream remembers: sound not yet used, and the graph's memory."""

    buffer: HopBuffer
    memory: dict[str, F32]


class StreamingSpeechEncoder:
    """Runs the `speech` graph over a stream.

    Law:
        Frame k depends on the samples before 320 * (k + 1) alone, however they were cut.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._memories = [t for t in graph.spec.inputs if t.name != "window"]
        self.width = int(graph.spec.outputs[0].shape[-1])
        self._settled = {t.name: np.zeros(_fixed(t.shape), np.float32) for t in self._memories}
        window = np.zeros((1, PAST + HOP), np.float32)
        for _ in range(_SETTLE):
            features, self._settled = self._hop(window, self._settled)
            self.silence: F32 = features[0]  # features of silence (2, width)

    def start(self) -> SpeechState:
        """State of a new stream: as if it had been silent for a while."""
        return SpeechState(HopBuffer(HOP, PAST), dict(self._settled))

    def step(self, state: SpeechState, pcm: F32) -> F32:
        """Hear `pcm` (N,) at 16 kHz; return the features (2 * hops completed, width).

        Raises:
            ValueError: `pcm` is not float32 of one dimension.
        """
        heard = []
        for window in state.buffer.push(pcm):
            features, state.memory = self._hop(window[None], state.memory)
            heard.append(features[0])
        return np.concatenate(heard) if heard else np.zeros((0, self.width), np.float32)

    def _hop(self, window: F32, memory: dict[str, F32]) -> tuple[F32, dict[str, F32]]:
        out = self._graph(window=window, **memory)
        return out["features"], {t.name: out[f"{t.name}_after"] for t in self._memories}


def _fixed(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(int(n) for n in shape)
