"""From speech features to the 52 face coefficients, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.audio.speech_encoder import WIDTH
from engine.audio.voice_activity import VoiceActivityDetector, VoiceActivityState
from engine.backends import BATCH, Graph, GraphSpec, Tensor, TensorSpec
from engine.backends.base import rounds
from engine.config import FEATURES_PER_FRAME, LOOKAHEAD_FRAMES
from engine.face import arkit

F32 = NDArray[np.float32]
FRAMES = FEATURES_PER_FRAME
LOOKAHEAD = LOOKAHEAD_FRAMES
MOTION = GraphSpec(
    "motion",
    (
        TensorSpec("features", (BATCH, FRAMES, WIDTH)),
        TensorSpec("memory", (BATCH, 36, 128)),
        TensorSpec("noise", (BATCH, 1, 16)),
        TensorSpec("style", (BATCH, 1)),
    ),
    (
        TensorSpec("coefficients", (BATCH, arkit.COUNT)),
        TensorSpec("energy", (BATCH, 1)),
        TensorSpec("memory_after", (BATCH, 36, 128)),
    ),
    precision="f32",
    light=True,
    small=True,
)
# A regression answers with averages, a jaw too open between the words. It is stretched about a mean in speech
# (first number) that becomes a little lower (second number): over ten English recordings .09, where captures
# of English speech have .07 and drawn lips part less than they are asked to.
STRETCH = 1.1
_MEANS = {"jawOpen": (0.089, 0.08)}
_STRETCHED = {
    column: filmed - STRETCH * ours
    for column, name in enumerate(arkit.NAMES)
    for stem, (ours, filmed) in _MEANS.items()
    if name.startswith(stem)
}
_COLUMNS, _SHIFT = list(_STRETCHED), np.array(list(_STRETCHED.values()), np.float32)
_SETTLE = 40  # frames of silence that a new stream starts from


@dataclass(slots=True)
class MotionState:
    """What one stream remembers.

    `energy` (T,) in [0, 1] says how strongly the frames of the last `step` were spoken.
    """

    memory: Tensor
    held: F32  # features waiting for the second half of their frame
    early: int  # frames still to drop before frame 0 is due
    rng: np.random.Generator
    energy: F32
    vad: VoiceActivityState | None


class MotionDecoder:
    """Runs the `motion` graph over a stream.

    Args:
        graph: the loaded network.
        silence: features of silence (2, width): `StreamingSpeechEncoder.silence`, from which noise is told
            from speech; when not given they are zeros, and every sound is speech.
        temperature: 0 always takes the likeliest motion; above 0, seeded variety.
        vad: off, every sound is speech: the speech encoder's features do not end in a log-mel spectrum.
        style: 0 articulates clearly, as the phone rules do; 1 as the animators of the recordings
            did, who left out most lip pressing; between is a blend.

    Law:
        Frame t depends on the features before 2 * (t + 3) alone, however they were cut.
    """

    def __init__(
        self,
        graph: Graph,
        silence: F32 | None = None,
        *,
        temperature: float = 0.0,
        style: float = 0.0,
        vad: bool = True,
    ) -> None:
        self._graph = graph
        shapes = {t.name: t.sized(1) for t in graph.spec.inputs}
        self.width = shapes["features"][2]
        self._noise = shapes["noise"]
        self._temperature = temperature
        self._style = np.full((1, 1), style, np.float32)
        self._settled: Tensor = np.zeros(shapes["memory"], np.float32)
        self._vad = VoiceActivityDetector(silence) if vad and silence is not None else None
        quiet = np.zeros((FRAMES, self.width), np.float32) if silence is None else silence
        nothing = np.zeros(self._noise, np.float32)
        for _ in range(_SETTLE):
            self._settled = graph(
                features=quiet[None], memory=self._settled, noise=nothing, style=self._style
            )["memory_after"]

    def start(self, seed: int = 0) -> MotionState:
        """State of a new stream; `seed` matters only with a temperature."""
        nothing = np.zeros((0, self.width), np.float32)
        rng = np.random.default_rng(seed)
        vad = self._vad.start() if self._vad else None
        return MotionState(self._settled, nothing, LOOKAHEAD, rng, np.zeros(0, np.float32), vad)

    def step(self, state: MotionState, features: F32) -> F32:
        """Take features (T, width) and return the coefficients (frames completed, 52) in [0, 1].

        Raises:
            ValueError: the features have another width or dtype.
        """
        return self.step_many([(state, features)])[0]

    def step_many(self, streams: Sequence[tuple[MotionState, F32]]) -> list[F32]:
        """`step` for several streams, each with its features (T, width), frame by frame together.

        Returns:
            the coefficients (frames completed, 52) of each.

        Raises:
            ValueError: as `step`.
        """
        pairs = [self._pairs(state, features) for state, features in streams]
        rows: list[list[F32]] = [[np.zeros((0, arkit.COUNT), np.float32)] for _ in streams]
        energy: list[list[F32]] = [[np.zeros(0, np.float32)] for _ in streams]
        for turn, due in rounds([len(own) for own in pairs]):
            feeds = [self._feeds(streams[i][0], pairs[i][turn]) for i in due]
            for i, out in zip(due, self._graph.each(feeds), strict=True):
                state = streams[i][0]
                state.memory = out["memory_after"]
                opening = np.float32(self._opening(state, pairs[i][turn]))
                if state.early:
                    state.early -= 1
                    continue
                frame = self._articulate(np.array(out["coefficients"]))
                frame[:, arkit.MOUTH] *= opening
                rows[i].append(frame)
                energy[i].append(np.asarray(out["energy"]).reshape(-1) * opening)
        for (state, _), spoken in zip(streams, energy, strict=True):
            state.energy = np.concatenate(spoken)
        return [np.concatenate(frames) for frames in rows]

    def _pairs(self, state: MotionState, features: F32) -> F32:
        """Features (T, 2, width) of the motion frames completed."""
        if features.ndim != 2 or features.shape[1] != self.width or features.dtype != np.float32:
            raise ValueError(
                f"wants float32 of shape (T, {self.width}), got {features.dtype} {features.shape}"
            )
        held = np.concatenate([state.held, features])
        count = len(held) // FRAMES
        state.held = held[count * FRAMES :]
        return held[: count * FRAMES].reshape(count, FRAMES, self.width)

    def _feeds(self, state: MotionState, pair: F32) -> dict[str, Tensor]:
        noise = state.rng.standard_normal(self._noise, np.float32) * self._temperature
        return {
            "features": pair[None],
            "memory": state.memory,
            "noise": noise.astype(np.float32),
            "style": self._style,
        }

    def _opening(self, state: MotionState, pair: F32) -> float:
        """How far the VAD lets the mouth open for features (2, width), in [0, 1]."""
        if self._vad is None or state.vad is None:
            return 1.0
        return self._vad.step(state.vad, pair)

    def _articulate(self, rows: F32) -> F32:
        clear = np.clip(STRETCH * rows[:, _COLUMNS] + _SHIFT, 0, 1)
        style = self._style[0, 0]
        rows[:, _COLUMNS] = style * rows[:, _COLUMNS] + (1 - style) * clear
        return rows
