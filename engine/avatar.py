"""The hot path, whole: PCM in, frames out. Live, offline, benchmark and test all call `step`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.audio.speech_encoder import SPEECH, SpeechEncoder, StreamingSpeechEncoder
from engine.backends import Backend, Graph, GraphSpec
from engine.backends.base import rounds
from engine.backends.threads import load_runtime
from engine.config import EngineConfig
from engine.drawing import FrameDrawer
from engine.enroll import Enroller, Identity
from engine.errors import ConfigError
from engine.face.detector import DETECTOR, LANDMARKS, FaceReader
from engine.face.lips import LIPS, LipWatch
from engine.motion.decoder import MOTION, MotionDecoder
from engine.motion.expression import Change, ExpressionState, Prompt, parse
from engine.motion.idle import IdleLife
from engine.motion.retarget import BLINKS, PRESSED, FaceBasis, retarget
from engine.motion.speech_context import SpeechContext
from engine.render.base import FrameCondition, FusedVideo, FusesVideo, Renderer
from engine.render.specs import DENOISE
from engine.render.tiny import TinyRenderer
from engine.state import StreamState
from engine.types import Pcm, PortraitReport, Quality, RgbImage, VideoFrame

F32 = NDArray[np.float32]
Row = tuple[F32, F32, float]  # coefficients (52,), pose (6,) and energy of one frame
# Beside the cache's own arrays: the last frame that was painted afresh, its lip gap and its mouth.
_PAINTED, _PARTED, _MOUTH = "painted", "parted", "mouth"
PAINT_EVERY = 3  # frames, on a CPU without bf16: painting each would take half of a frame's time


class AvatarEngine:
    """Loaded networks, shared and read-only; all that changes lives in a `StreamState`.

    Law:
        Splitting the PCM differently never changes the frames; later PCM never changes earlier ones.
        So it is too when `config.engine_threads` threads step at once, each its own streams.
    """

    def __init__(
        self,
        config: EngineConfig,
        enroller: Enroller,
        speech: SpeechEncoder,
        motion: MotionDecoder,
    ) -> None:
        self.config = config
        self._enroller, self._speech, self._motion = enroller, speech, motion
        self._renderer, self._basis = enroller.renderer, enroller.basis
        self._idle = IdleLife(calm=config.calm)
        self._drawer = FrameDrawer(self._renderer, config.paint_every)

    @classmethod
    def load(
        cls,
        config: EngineConfig | None = None,
        backend: Backend | None = None,
        renderer: Renderer[Any, Any] | None = None,
        speech_motion: tuple[SpeechEncoder, MotionDecoder] | None = None,
    ) -> Self:
        """Load every network of the profile.

        Args:
            backend: the run time, when it is not the one that `config` names.
            renderer: the part that draws, when it is not made of the profile's graphs.
            speech_motion: a speech encoder and the motion decoder trained on it, when they are not
                the profile's graphs.

        Raises:
            BackendUnavailable: the run time is not installed.
            WeightsError: a file is missing or damaged.
        """
        config = config or EngineConfig()
        if backend is None:
            config, backend = load_runtime(config, DENOISE)

        def load(spec: GraphSpec) -> Graph:
            return backend.load(spec, config.weights / f"{spec.name}.onnx")

        if speech_motion is None:
            speech = StreamingSpeechEncoder(load(SPEECH))
            speech_motion = speech, MotionDecoder(load(MOTION), speech.silence)
        encoder, motion = speech_motion
        every = config.paint_every or (1 if backend.fast else PAINT_EVERY)
        enroller = Enroller(
            FaceReader(load(DETECTOR), load(LANDMARKS)),
            LipWatch(load(LIPS)),
            renderer or TinyRenderer(load, config.num_inference_steps, backend.put),
            FaceBasis.load(config.weights / "basis.npz"),
            config.max_side,
        )
        return cls(replace(config, paint_every=every), enroller, encoder, motion)

    def enroll(
        self,
        image: RgbImage,
        *,
        face: int | None = None,
        alpha: NDArray[np.uint8] | None = None,
        more: Sequence[RgbImage] = (),
        mixed: Sequence[tuple[RgbImage, float]] = (),
    ) -> Identity:
        """Make an identity from a portrait (H, W, 3).

        Args:
            face: which face of it talks, counted from the left, from 1; the largest without it.
            alpha: (H, W) of a portrait laid on grey; the tiny profile's frames have it too.
            more: further portraits of the same person, where the profile draws from several.
            mixed: other people and how much of each, below 1 in all.

        Raises:
            PortraitRefused: an image has no usable face.
            ConfigError: the profile draws from one portrait only.
        """
        return self._enroller.enroll(image, face=face, alpha=alpha, more=more, mixed=mixed)

    def report(self, identity: Identity) -> PortraitReport:
        """What enrolling this identity had to say."""
        return identity.report

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

    def set_prompt(self, state: StreamState, prompt: Change, *, at: int | None = None) -> None:
        """Change the prompt of a stream, or its strengths, from frame `at` on or from its next frame.

        A change and its frame are input like the sound: the two laws hold with them.

        Raises:
            ValueError: frame `at` was drawn already.
        """
        state.expression.change(prompt, state.next_index if at is None else at, state.next_index)

    def set_identity(self, state: StreamState, identity: Identity) -> None:
        """Show another portrait from the next frame on; what was heard and the motion go on."""
        state.identity = identity
        state.cache = self._renderer.cold(identity.face)
        state.painted, state.shown = None, None

    def settle(self, state: StreamState) -> None:
        """Bring the mouth to rest from the next frame on; speech that begins afterwards moves it again.

        Frames that still hear what was cut off move it as before: nobody sees them.
        """
        state.settling.begin(self.config.stream.lookahead_frames)

    def set_quality(self, state: StreamState, quality: Quality) -> None:
        """Draw the frames of a stream at another quality from the next one on."""
        state.quality = quality

    def pack(self, state: StreamState) -> dict[str, NDArray[Any]]:
        """What the next frame needs of those drawn before it, as arrays; see `resume`."""
        painted = -1 if state.painted is None else state.painted
        last = {_PAINTED: np.array(painted), _PARTED: np.array(state.parted), _MOUTH: state.mouth}
        return {**self._renderer.pack(state.cache), **last}

    def resume(self, state: StreamState, frame: int, kept: Mapping[str, NDArray[Any]]) -> None:
        """Let a new stream begin to draw at `frame`, with what `pack` gave after the one before.

        The sound is heard from the start again; frames before `frame` do not come out.
        """
        state.draw_from, state.cache = frame, self._renderer.unpack(kept)
        painted = int(kept[_PAINTED])
        state.painted = None if painted < 0 else painted
        state.parted, state.mouth = float(kept[_PARTED]), kept[_MOUTH]

    def step(self, state: StreamState, pcm: Pcm) -> list[VideoFrame]:
        """Take 16 kHz PCM (N,) of any length and return every frame it completed."""
        return self.step_many([(state, pcm)])[0]

    def step_many(self, streams: Sequence[tuple[StreamState, Pcm]]) -> list[list[VideoFrame]]:
        """`step` for several streams at once, each with its own PCM (N,); the frames of each.

        Law:
            The frames of a stream do not depend on the others: bit for bit on a CPU in fp32, else
            as far as the run time rounds the rows of a batch alike.

        Raises:
            ValueError: a state is given twice.
        """
        if len({id(state) for state, _ in streams}) < len(streams):
            raise ValueError("a stream can only take one step at a time")
        for state, pcm in streams:
            state.samples += len(pcm)
        rows = self._hear(streams)
        return self._frames([(state, own) for (state, _), own in zip(streams, rows, strict=True)])

    def flush(self, state: StreamState) -> list[VideoFrame]:
        """Return the frames still held back, as if silence followed; the stream ends with it.

        Together with those before they are ceil(samples / hop): the last one may be partly filled.
        """
        left = max(0, self._count(state.samples) - state.next_index)
        [rows] = self._hear([(state, self._silence(state.samples))])
        return self._frames([(state, rows[:left])])[0]

    def fuse(self, state: StreamState, pcm: Pcm) -> FusedVideo:
        """Begin the video of a whole sound (N,) at 16 kHz: its frames are sampled together.

        Raises:
            ConfigError: the profile draws frame after frame only.
        """
        if not isinstance(self._renderer, FusesVideo):
            raise ConfigError("the tiny profile draws frame after frame; use --profile sd15")
        [heard] = self._hear([(state, pcm)])
        [rest] = self._hear([(state, self._silence(len(pcm)))])
        count = self._count(len(pcm))
        conditions = [self._condition(state, *row) for row in [*heard, *rest][:count]]
        return self._renderer.fuse(state.identity.face, conditions)

    def _count(self, samples: int) -> int:
        """Frames of that much sound; the last one may be only partly filled."""
        return -(-samples // self.config.stream.hop_samples)

    def _silence(self, samples: int) -> Pcm:
        """What completes the last hop of so many samples, and what the look-ahead holds back."""
        hop = self.config.stream.hop_samples
        return np.zeros(-samples % hop + self.config.stream.lookahead_frames * hop, np.float32)

    def _hear(self, streams: Sequence[tuple[StreamState, Pcm]]) -> list[list[Row]]:
        """What the face does in each frame that was completed."""
        features = self._speech.step_many([(state.speech, pcm) for state, pcm in streams])
        for (state, _), heard in zip(streams, features, strict=True):
            state.context.push(heard, state.next_index)
        spoken = self._motion.step_many(
            [(state.motion, heard) for (state, _), heard in zip(streams, features, strict=True)]
        )
        return [
            self._living(state, coefficients)
            for (state, _), coefficients in zip(streams, spoken, strict=True)
        ]

    def _living(self, state: StreamState, spoken: F32) -> list[Row]:
        """Coefficients (T, 52) of speech with the life of a face that is at rest."""
        energy = state.motion.energy
        pose, alive = self._idle.step(state.idle, len(spoken), energy)
        spoken = state.settling.step(spoken, energy)
        rows = zip(spoken + alive, pose, energy, strict=True)
        return [(coefficients, placed, float(loud)) for coefficients, placed, loud in rows]

    def _frames(
        self, streams: Sequence[tuple[StreamState, Sequence[Row]]]
    ) -> list[list[VideoFrame]]:
        """Draw the frames of several streams, one of each at a time."""
        frames: list[list[VideoFrame]] = [[] for _ in streams]
        for turn, due in rounds([len(rows) for _, rows in streams]):
            aims = [
                (streams[i][0], self._condition(streams[i][0], *streams[i][1][turn])) for i in due
            ]
            for i, frame in zip(due, self._drawer.draw(aims), strict=True):
                if frame is not None:
                    frames[i].append(frame)
        return frames

    def _condition(
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
            steps=state.quality.steps,
            strengths=state.expression.prompt.strengths or self.config.diffusion.strengths,
            speech=state.context.at(index),
            coefficients=np.clip(coefficients + offsets, 0, 1).astype(np.float32),
        )
