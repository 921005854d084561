"""The hot path, whole: PCM in, frames out. Live, offline, benchmark and test all call `step`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.audio.speech_encoder import SPEECH, SpeechEncoder, StreamingSpeechEncoder
from engine.backends import Backend, Graph, GraphSpec, load_backend
from engine.config import EngineConfig
from engine.enroll import Identity, enroll
from engine.face.detector import DETECTOR, LANDMARKS, FaceReader
from engine.face.landmarks import lip_gap
from engine.motion.decoder import MOTION, MotionDecoder
from engine.motion.expression import ExpressionState, Prompt, parse
from engine.motion.idle import IdleLife
from engine.motion.retarget import BLINKS, PRESSED, FaceBasis, retarget
from engine.motion.speech_context import SpeechContext
from engine.render.base import FrameCondition, FusedVideo, Renderer
from engine.render.tiny import TinyRenderer
from engine.state import StreamState
from engine.types import Pcm, Quality, RgbImage, VideoFrame

F32 = NDArray[np.float32]
# Beside the cache's own arrays: the last frame that was painted afresh, and its lip gap.
_PAINTED, _PARTED = "painted", "parted"
PAINT_EVERY = (
    3  # frames, on a CPU without bf16: painting each one would take half of a frame's time
)
OPENED = 0.012  # of the face height: lips that part further than painted are painted early


class AvatarEngine:
    """Loaded networks, shared and read-only; all that changes lives in a `StreamState`.

    Law:
        Splitting the PCM differently never changes the frames; later PCM never changes earlier ones.
    """

    def __init__(
        self,
        config: EngineConfig,
        reader: FaceReader,
        speech: SpeechEncoder,
        motion: MotionDecoder,
        renderer: Renderer,
        basis: FaceBasis,
    ) -> None:
        self.config = config
        self._reader, self._speech, self._motion = reader, speech, motion
        self._renderer, self._basis, self._idle = renderer, basis, IdleLife()

    @classmethod
    def load(
        cls,
        config: EngineConfig | None = None,
        backend: Backend | None = None,
        renderer: Renderer | None = None,
        hearing: tuple[SpeechEncoder, MotionDecoder] | None = None,
    ) -> Self:
        """Load every network of the profile.

        Args:
            backend: the run time, when it is not the one that `config` names.
            renderer: the part that draws, when it is not made of the profile's graphs.
            hearing: a speech encoder and the motion network trained on it, when they are not the graphs.

        Raises:
            BackendUnavailable: the run time is not installed.
            WeightsError: a file is missing or damaged.
        """
        config = config or EngineConfig()
        runtime = backend or load_backend(config.backend, threads=config.threads)

        def load(spec: GraphSpec) -> Graph:
            return runtime.load(spec, config.weights / f"{spec.name}.onnx")

        if hearing is None:
            speech = StreamingSpeechEncoder(load(SPEECH))
            hearing = speech, MotionDecoder(load(MOTION), speech.silence)
        encoder, mouth = hearing
        every = config.paint_every or (1 if runtime.fast else PAINT_EVERY)
        return cls(
            replace(config, paint_every=every),
            FaceReader(load(DETECTOR), load(LANDMARKS)),
            encoder,
            mouth,
            renderer or TinyRenderer(load, config.num_inference_steps),
            FaceBasis.load(config.weights / "basis.npz"),
        )

    def enroll(
        self,
        image: RgbImage,
        *,
        more: Sequence[RgbImage] = (),
        mixed: Sequence[tuple[RgbImage, float]] = (),
    ) -> Identity:
        """Make an identity from a portrait (H, W, 3).

        Args:
            more: further portraits of the same person, where the profile draws from several.
            mixed: other people and how much of each, below 1 in all.

        Raises:
            PortraitRefused: a picture has not exactly one usable face.
            ConfigError: the profile draws from one portrait only.
        """
        return enroll(
            image,
            more=more,
            mixed=mixed,
            reader=self._reader,
            renderer=self._renderer,
            basis=self._basis,
            max_side=self.config.max_side,
        )

    def start(self, identity: Identity, *, seed: int = 0) -> StreamState:
        """Make the state of a new stream; the same seed gives the same stream."""
        return StreamState(
            identity,
            self._speech.start(),
            self._motion.start(seed),
            self._idle.start(seed),
            ExpressionState.start(),
            self._renderer.cold(identity.face),
            self._renderer.noise(seed),
            SpeechContext(np.zeros((0, self._speech.width), np.float32)),
        )

    def read_prompt(self, text: str) -> Prompt:
        """Read words such as "smile 0.6, brows up"; raises `PromptRefused` with what is known."""
        expression, others = parse(text)
        return Prompt(expression, self._renderer.read_words(text, others))

    def set_prompt(self, state: StreamState, prompt: Prompt, *, at: int | None = None) -> None:
        """Change the prompt of a stream from frame `at` on, or from the next frame it draws.

        The change and its frame are input like the sound is: the two laws hold with them.

        Raises:
            ValueError: frame `at` was drawn already.
        """
        drawn = state.next_index
        state.expression.change(prompt, drawn if at is None else at, drawn)

    def set_quality(self, state: StreamState, quality: Quality) -> None:
        """Draw the frames of a stream at another quality from the next one on."""
        state.quality = quality

    def pack(self, state: StreamState) -> dict[str, NDArray[Any]]:
        """What the next frame needs of those drawn before it, as arrays; see `resume`."""
        painted = -1 if state.painted is None else state.painted
        last = {_PAINTED: np.array(painted), _PARTED: np.array(state.parted)}
        return {**self._renderer.pack(state.cache), **last}

    def resume(self, state: StreamState, frame: int, kept: Mapping[str, NDArray[Any]]) -> None:
        """Let a new stream begin to draw at `frame`, with what `pack` gave after the one before.

        The sound is heard from the start again; frames before `frame` do not come out.
        """
        state.draw_from, state.cache = frame, self._renderer.unpack(kept)
        painted = int(kept[_PAINTED])
        state.painted = None if painted < 0 else painted
        state.parted = float(kept[_PARTED])

    def step(self, state: StreamState, pcm: Pcm) -> list[VideoFrame]:
        """Take 16 kHz PCM of any length and return every frame it completed."""
        state.samples += len(pcm)
        return self._frames(state, self._hear(state, pcm))

    def flush(self, state: StreamState) -> list[VideoFrame]:
        """Return the frames still held back by the look-ahead, as if silence followed."""
        left = max(0, self._count(state.samples) - state.next_index)
        return self._frames(state, islice(self._hear(state, self._silence()), left))

    def film(self, state: StreamState, pcm: Pcm) -> FusedVideo:
        """Begin the video of a whole sound, whose frames are sampled together and not one by one.

        Raises:
            ConfigError: the profile draws frame after frame only.
        """
        rows = [*self._hear(state, pcm), *self._hear(state, self._silence())]
        conditions = [self._aim(state, *row) for row in rows[: self._count(len(pcm))]]
        return self._renderer.film(state.identity.face, conditions)

    def _count(self, samples: int) -> int:
        """Frames of that much sound; the last one may be only partly filled."""
        return -(-samples // self.config.stream.hop_samples)

    def _silence(self) -> Pcm:
        """As much of it as the look-ahead holds back."""
        stream = self.config.stream
        return np.zeros(stream.lookahead_frames * stream.hop_samples, np.float32)

    def _hear(self, state: StreamState, pcm: Pcm) -> Iterator[tuple[F32, F32, float]]:
        """Coefficients (52,), pose (6,) and energy of each frame that `pcm` completed."""
        features = self._speech.step(state.speech, pcm)
        state.context.push(features, state.next_index)
        spoken = self._motion.step(state.motion, features)
        pose, alive = self._idle.step(state.idle, len(spoken), state.motion.energy)
        for c, p, energy in zip(spoken + alive, pose, state.motion.energy, strict=True):
            yield c, p, float(energy)

    def _frames(
        self, state: StreamState, rows: Iterable[tuple[F32, F32, float]]
    ) -> list[VideoFrame]:
        frames = [self._frame(state, *row) for row in rows]
        return [frame for frame in frames if frame is not None]

    def _frame(
        self, state: StreamState, coefficients: F32, pose: F32, energy: float
    ) -> VideoFrame | None:
        condition = self._aim(state, coefficients, pose, energy)
        index = condition.index
        if index < state.draw_from:
            return None
        fresh = state.shown is None or index % state.quality.draw_every == 0
        if state.shown is None or fresh:
            state.shown = self._draw(state, condition)
        return VideoFrame(index, state.shown, fresh)

    def _aim(
        self, state: StreamState, coefficients: F32, pose: F32, energy: float
    ) -> FrameCondition:
        """What the next frame of a stream is to show."""
        index, who = state.next_index, state.identity
        state.next_index += 1
        pressed = float(coefficients[PRESSED].max())
        offsets = state.expression.step(index, energy, pressed)
        shown = np.tensordot(offsets, who.shapes, 1).astype(np.float32)
        placed = pose * np.array([1, 1, 1, who.span, who.span, 1], np.float32)
        placed[5] = np.log(pose[5])
        return FrameCondition(
            target=retarget(who.neutral, self._basis, coefficients, placed, shown),
            blink=np.clip(np.maximum(coefficients[BLINKS], offsets[BLINKS]), 0, 1),
            placement=(placed / np.array([1, 1, 1, who.span, who.span, 1])).astype(np.float32),
            noise=state.noise,
            index=index,
            words=state.expression.prompt.words,
            speech=state.context.at(index),
        )

    def _draw(self, state: StreamState, condition: FrameCondition) -> RgbImage:
        face, parted = state.identity.face, float(lip_gap(condition.target))
        if not self._due(state, condition.index, parted):
            return self._renderer.draw_between(face, state.cache, condition)
        rgb, state.cache = self._renderer.draw(face, state.cache, condition)
        state.painted, state.parted = condition.index, parted
        return rgb

    def _due(self, state: StreamState, index: int, parted: float) -> bool:
        """Whether a frame is painted, whose lips are `parted` so far over the face height.

        A carried crop cannot show what it was not painted with: lips that open do not wait for
        their turn, only for a third of it.
        """
        if state.painted is None:
            return True
        every, since = state.quality.paint_every or self.config.paint_every, index - state.painted
        opening = parted - state.parted > OPENED
        return since >= every or (opening and 3 * since >= every)
