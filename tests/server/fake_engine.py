"""The one fake: an engine in numpy that obeys the protocol and the two laws."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from engine.config import EngineConfig
from engine.errors import PortraitRefused
from engine.face import arkit
from engine.motion.expression import Prompt, parse, refuse_words
from engine.types import FaceMotion, Pcm, PortraitReport, Quality, RgbImage, VideoFrame


@dataclass
class FakeState:
    identity: RgbImage
    pcm: Pcm = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    next_frame: int = 0
    fail_at: int | None = None
    prompts: list[tuple[int, str]] = field(default_factory=list)
    quality: Quality = Quality()
    settled: list[int] = field(default_factory=list)
    shown: RgbImage | None = None
    motion: FaceMotion | None = None


class FakeEngine:
    """Draws a mouth that opens with the energy of a frame's own 40 ms; two frames of look-ahead.

    A wholly black picture has no face, a white one a covered mouth, a grey one a small one, a blue one turns away.
    A stream started while `fail_at` is set raises at that frame; `step_seconds` is spent on each
    that is drawn.
    """

    def __init__(
        self,
        *,
        step_seconds: float = 0.0,
        enroll_seconds: float = 0.0,
        fail_at: int | None = None,
        side: int = 512,
        batch: int = 1,
        threads: int = 1,
    ) -> None:
        self.config = EngineConfig(batch=batch, engine_threads=threads)
        self.batches: list[int] = []  # streams of each step
        self.side = side
        self.step_seconds = step_seconds
        self.enroll_seconds = enroll_seconds
        self.fail_at = fail_at
        self.enrolled = 0

    def report(self, identity: RgbImage) -> PortraitReport:
        return PortraitReport()

    def enroll(self, image: RgbImage, *, face: int | None = None) -> RgbImage:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"enroll() wants uint8 (H, W, 3), got {image.dtype} {image.shape}")
        means = image.reshape(-1, 3).mean(axis=0)
        codes = {
            (0, 0, 0): "no_face",
            (255, 255, 255): "mouth_hidden",
            (128, 128, 128): "face_too_small",
            (0, 0, 255): "turned_away",
        }
        for colour, code in codes.items():
            if np.abs(means - colour).max() < 3 and image.std(axis=(0, 1)).max() < 3:
                raise PortraitRefused(code, f"the fake engine says {code}")
        time.sleep(self.enroll_seconds)
        self.enrolled += 1
        return np.asarray(Image.fromarray(image).resize((self.side, self.side)), dtype=np.uint8)

    def start(self, identity: RgbImage, *, seed: int = 0) -> FakeState:
        return FakeState(identity, fail_at=self.fail_at)

    def read_prompt(self, text: str) -> Prompt:
        expression, others = parse(text)
        refuse_words(others)
        return Prompt(expression)

    def set_prompt(self, state: FakeState, prompt: Prompt, *, at: int | None = None) -> None:
        state.prompts.append((state.next_frame if at is None else at, str(prompt)))

    def set_identity(self, state: FakeState, identity: RgbImage) -> None:
        state.identity, state.shown = identity, None

    def settle(self, state: FakeState) -> None:
        """Take note: its mouth is at rest in silence anyway."""
        state.settled.append(state.next_frame)

    def set_quality(self, state: FakeState, quality: Quality) -> None:
        state.quality = quality

    def step_many(self, streams: Sequence[tuple[FakeState, Pcm]]) -> list[list[VideoFrame]]:
        self.batches.append(len(streams))
        return [self.step(state, pcm) for state, pcm in streams]

    def step(self, state: FakeState, pcm: Pcm) -> list[VideoFrame]:
        if pcm.ndim != 1 or pcm.dtype != np.float32:
            raise ValueError(f"step() wants float32 (N,), got {pcm.dtype} {pcm.shape}")
        state.pcm = np.concatenate([state.pcm, pcm])
        hop = self.config.stream.hop_samples
        needed = hop * (1 + self.config.stream.lookahead_frames)
        frames = []
        while len(state.pcm) >= needed:
            frames.append(self._frame(state, state.pcm[:hop]))
            state.pcm = state.pcm[hop:]
        return frames

    def flush(self, state: FakeState) -> list[VideoFrame]:
        hop = self.config.stream.hop_samples
        return self.step(state, np.zeros(hop * self.config.stream.lookahead_frames, np.float32))

    def _frame(self, state: FakeState, pcm: Pcm) -> VideoFrame:
        index = state.next_frame
        if index == state.fail_at:
            raise RuntimeError(f"the fake engine fails at frame {index}, as asked")
        state.next_frame += 1
        if state.shown is not None and index % state.quality.draw_every:
            return VideoFrame(index, state.shown, False, state.motion)
        if self.step_seconds:
            time.sleep(self.step_seconds)
        rgb = state.identity.copy()
        unit = self.side / 512
        opening = 4 + min(1.0, float(np.sqrt(np.mean(pcm**2))) * 4) * 60
        sway = 6 * np.sin(index / 12)
        rows = slice(int(360 * unit), int((360 + opening) * unit) + 1)
        rgb[rows, int((216 + sway) * unit) : int((296 + sway) * unit)] = (90, 20, 30)
        state.shown = rgb
        coefficients = np.zeros(52, np.float32)
        coefficients[arkit.index("jawOpen")] = (opening - 4) / 60
        state.motion = FaceMotion(coefficients, np.zeros(6, np.float32), (opening - 4) / 512)
        return VideoFrame(index, rgb, True, state.motion)
