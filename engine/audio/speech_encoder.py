"""The speech encoder: sound in, speech features out, hop by hop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.audio.hop_buffer import HopBuffer
from engine.backends import Graph, GraphSpec, TensorSpec

F32 = NDArray[np.float32]
HOP, PAST = 640, 576  # samples of a hop, and before it, that the graph hears
FRAMES = 2  # feature frames a hop
WIDTH = 616  # numbers in a feature frame: twice 288 of the encoder, 40 of the log-mel spectrum
_MEMORY = (
    *(("level", (1, 1)), ("pending", (1, 3, 288))),
    *((name, (6, 1, 48, 288)) for name in ("keys", "values")),
)
SPEECH = GraphSpec(
    "speech",
    (TensorSpec("window", (1, PAST + HOP)), *(TensorSpec(n, shape) for n, shape in _MEMORY)),
    (
        TensorSpec("features", (1, FRAMES, WIDTH)),
        *(TensorSpec(f"{n}_after", shape) for n, shape in _MEMORY),
    ),
    precision="f32",  # the spectrum's logarithm needs it
)
_SETTLE = 30  # hops of silence a new stream has heard


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
