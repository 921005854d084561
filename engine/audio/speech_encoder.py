"""The speech encoder: sound in, speech features out, hop by hop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.audio.hop_buffer import HopBuffer
from engine.audio.rotary import rotations
from engine.backends import BATCH, Graph, GraphSpec, Tensor, TensorSpec
from engine.backends.base import rounds
from engine.config import FEATURES_PER_FRAME, HOP_SAMPLES

F32 = NDArray[np.float32]
HOP = HOP_SAMPLES
PAST = 576  # samples before a hop that the graph also takes
FRAMES = FEATURES_PER_FRAME
AHEAD = 3  # frames that are heard before one is settled
WIDTH = 616  # numbers in a feature frame: twice 288 of the encoder, 40 of the log-mel spectrum
_MEMORY: tuple[tuple[str, tuple[int | str, ...]], ...] = (
    ("level", (BATCH, 1)),
    ("pending", (BATCH, AHEAD, 288)),
    ("keys", (6, BATCH, 48, 288)),
    ("values", (6, BATCH, 48, 288)),
)
SPEECH = GraphSpec(
    "speech",
    (
        TensorSpec("window", (BATCH, PAST + HOP)),
        TensorSpec("turns", (BATCH, 2, FRAMES + AHEAD, 288)),
        *(TensorSpec(n, shape) for n, shape in _MEMORY),
    ),
    (
        TensorSpec("features", (BATCH, FRAMES, WIDTH)),
        *(TensorSpec(f"{n}_after", shape) for n, shape in _MEMORY),
    ),
    precision="f32",  # the spectrum's logarithm needs it
    light=True,
    small=True,
)
_SETTLE = 30  # hops of silence that a new stream starts from


class SpeechEncoder(Protocol):
    """Sound in, speech features out; what one stream remembers is opaque to the caller.

    Law:
        A feature depends on the sound before some later sample alone, however it was cut.
    """

    width: int  # numbers in a feature frame

    def start(self) -> Any:
        """State of a new stream."""

    def step(self, state: Any, pcm: F32) -> F32:
        """Take 16 kHz `pcm` (N,); the features (T, width) it completed, 50 a second."""

    def step_many(self, streams: Sequence[tuple[Any, F32]]) -> list[F32]:
        """`step` for several streams, each with its `pcm` (N,); the features (T, width) of each."""


@dataclass(slots=True)
class SpeechState:
    """What one stream remembers: sound not yet used, the graph's memory, and the hops behind it."""

    buffer: HopBuffer
    memory: dict[str, Tensor]
    hops: int = _SETTLE


class StreamingSpeechEncoder:
    """Runs the `speech` graph over a stream.

    Law:
        Frame k depends on the samples before 320 * (k + 1) alone, however they were cut.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._memories = [t for t in graph.spec.inputs if t.name not in ("window", "turns")]
        self.width = int(graph.spec.outputs[0].shape[-1])
        self._settled = {t.name: np.zeros(t.sized(1), np.float32) for t in self._memories}
        window = np.zeros((1, PAST + HOP), np.float32)
        for hop in range(_SETTLE):
            out = self._graph(window=window, turns=_turns(hop), **self._settled)
            self._settled = self._remembered(out)
            self.silence: F32 = np.asarray(out["features"])[0]  # features of silence (2, width)

    def start(self) -> SpeechState:
        """State of a new stream: as if it had been silent for a while."""
        return SpeechState(HopBuffer(HOP, PAST), dict(self._settled))

    def step(self, state: SpeechState, pcm: F32) -> F32:
        """Take `pcm` (N,) at 16 kHz; return the features (2 * hops completed, width).

        Raises:
            ValueError: `pcm` is not float32 of one dimension.
        """
        return self.step_many([(state, pcm)])[0]

    def step_many(self, streams: Sequence[tuple[SpeechState, F32]]) -> list[F32]:
        """`step` for several streams, each with its `pcm` (N,), hop by hop together.

        Returns:
            the features (2 * hops completed, width) of each.

        Raises:
            ValueError: as `step`.
        """
        windows = [state.buffer.push(pcm) for state, pcm in streams]
        features: list[list[F32]] = [[np.zeros((0, self.width), np.float32)] for _ in streams]
        for hop, due in rounds([len(rows) for rows in windows]):
            feeds = [
                {
                    "window": windows[i][hop, None],
                    "turns": _turns(streams[i][0].hops),
                    **streams[i][0].memory,
                }
                for i in due
            ]
            for i, out in zip(due, self._graph.each(feeds), strict=True):
                streams[i][0].memory = self._remembered(out)
                streams[i][0].hops += 1
                features[i].append(np.asarray(out["features"])[0])
        return [np.concatenate(rows) for rows in features]

    def _remembered(self, out: dict[str, Tensor]) -> dict[str, Tensor]:
        return {t.name: out[f"{t.name}_after"] for t in self._memories}


def _turns(hop: int) -> F32:
    """Rotations (1, 2, 5, 288) of the frames that a hop makes or makes anew."""
    return rotations(FRAMES * hop, FRAMES + AHEAD)[None]
