"""Prepared clips -> batches: runs of consecutive frames of one person, with portraits of them.

A batch depends on the seed, the step and the process alone, so a resumed run sees what an unbroken
one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from engine.errors import DataError
from engine.face.head_mask import head_mask
from engine.face.placement import landmarks_68, placement
from engine.motion.speech_context import HEARD, window
from engine.training.data.clips import Clip
from engine.training.data.face_masks import holes, lower_face_mask
from engine.training.portraittalk.stage_config import DataSettings

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TalkBatch:
    """B runs of F consecutive frames; images in [-1, 1], coordinates in [0, 1]."""

    frames: Tensor  # (B, F, 3, S, S)
    landmarks: Tensor  # (B, F, 478, 2)
    points: Tensor  # (B, F, 68, 3)
    placement: Tensor  # (B, F, 8) of the frame before, as the paper guides
    references: Tensor  # (B, R, 3, S, S)
    reference_placement: Tensor  # (B, 8) of the first portrait: what a cold start is told
    embeddings: Tensor  # (B, R, E)
    speech: Tensor  # (B, F, 16, W) features around each frame; W is 0 where no model is told speech
    mask: Tensor  # (B, 1, S, S) of the last frame; 1 is kept
    prompts: tuple[str, ...]

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "prompts"}
        return replace(self, **{name: tensor.to(device) for name, tensor in moved.items()})

    def rows(self, count: int) -> TalkBatch:
        """The first `count` samples."""
        return replace(self, **{f.name: getattr(self, f.name)[:count] for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """What a sample holds."""

    frames: int = 1  # consecutive ones
    masked: float = 0.0  # share of samples whose last frame gets a mask; else it keeps everything
    hole_share: float = 0.3  # of squares hidden in a mask of holes
    embedding: int = 512  # numbers of a face embedding; 0: as they are
    scale: int = 1  # of the frames' side over `DataSettings.size`
    speech: int = 0  # numbers of a speech feature, for a model that is told speech; 0 for none


class TalkData:
    """Draws batches from clips.

    Args:
        depth: (478,) of the landmarks, see `FaceBasis`.

    Raises:
        DataError: no clip is long enough, its frames are too small, or embeddings or speech have
            another width.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        settings: DataSettings,
        depth: F32,
        sample: SampleSettings,
    ) -> None:
        frames, embedding, speech = sample.frames, sample.embedding, sample.speech
        self.clips = [c for c in clips if len(c) > frames]
        self.settings, self.frames, self._depth = settings, frames, depth
        self._side = settings.size * sample.scale
        self._masked, self._hole_share = sample.masked, sample.hole_share
        if not self.clips:
            raise DataError(f"no clip has more than {frames} frames, which a sample needs")
        for clip in self.clips:
            if sample.scale > 1 and clip.card.size < self._side:
                raise DataError(
                    f"{clip.folder.name} was prepared at {clip.card.size} pixels a side; size = "
                    f"{settings.size} with output_scale = {sample.scale} learns from {self._side}"
                )
            if embedding not in (0, clip.embeddings.shape[1]):
                raise DataError(
                    f"{clip.folder.name} holds face embeddings of {clip.embeddings.shape[1]} "
                    f"numbers ({clip.card.face_encoder}), the model wants {embedding}; leave "
                    "face_embedding out of [model], or prepare with another face encoder"
                )
        self._speech = {c.folder: _speech(c, speech) for c in self.clips} if speech else {}
        weights = np.array([len(c) for c in self.clips], np.float64)
        self._weights = weights / weights.sum()

    def batch(self, size: int, seed: Sequence[int]) -> TalkBatch:
        """Draw `size` samples, of as many portraits each; the same `seed` gives the same batch."""
        rng = np.random.RandomState(list(seed))
        most = self.settings.references
        portraits = 1 if most == 1 else rng.randint(1, most + 1)
        return self._stack([self._draw(rng, portraits) for _ in range(size)])

    def fixed(self, size: int) -> TalkBatch:
        """Samples spread over the clips, always the same ones, of as many portraits as there may be."""
        rng = np.random.RandomState(0)
        rows = []
        for i in range(size):
            clip = self.clips[i % len(self.clips)]
            spread = (1 + 2 * (i // len(self.clips))) / (2 * -(-size // len(self.clips)))
            first = 1 + int(spread * (len(clip) - self.frames))
            rows.append(self._sample(clip, first, rng, self.settings.references))
        return self._stack(rows)

    def _draw(self, rng: np.random.RandomState, portraits: int) -> tuple[Any, ...]:
        clip = self.clips[rng.choice(len(self.clips), p=self._weights)]
        return self._sample(clip, rng.randint(1, len(clip) - self.frames + 1), rng, portraits)

    def _sample(
        self, clip: Clip, first: int, rng: np.random.RandomState, portraits: int
    ) -> tuple[Any, ...]:
        run = range(first, first + self.frames)
        last = run[-1]
        chosen = self._references(clip, last, rng, portraits)
        shown = clip.reference_frames[chosen]
        return (
            np.stack([self._frame(clip, i) for i in run]),
            clip.landmarks[first : last + 1],
            np.stack([self._points(clip, i, shown[0]) for i in run]),
            np.stack([self._placement(clip, i - 1, shown[0]) for i in run]),
            np.stack([self._frame(clip, int(i)) for i in shown]),
            self._placement(clip, shown[0], shown[0]),
            clip.embeddings[chosen].astype(np.float32),
            np.stack([self._speech_context(clip, i) for i in run]),
            self._mask(clip.landmarks[last], rng)[None],
            clip.card.prompt,
        )

    def _references(
        self, clip: Clip, frame: int, rng: np.random.RandomState, portraits: int
    ) -> Any:
        """Rows of the frames that stand as reference, far from `frame` where the clip allows."""
        distance = np.abs(clip.reference_frames - frame)
        far = np.flatnonzero(distance >= min(self.settings.reference_gap, distance.max()))
        return rng.choice(far, portraits, replace=len(far) < portraits)

    def _frame(self, clip: Clip, index: int) -> F32:
        rgb = clip.frame(index)
        side = self._side
        if rgb.shape[0] != side:
            how = Image.Resampling.LANCZOS
            rgb = np.asarray(Image.fromarray(rgb).resize((side, side), how))
        return np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32) / 127.5 - 1

    def _points(self, clip: Clip, index: int, portrait: int) -> F32:
        return landmarks_68(clip.landmarks[index], *self._turn(clip, index, portrait), self._depth)

    def _placement(self, clip: Clip, index: int, portrait: int) -> F32:
        return placement(clip.landmarks[index], *self._turn(clip, index, portrait))

    @staticmethod
    def _turn(clip: Clip, index: int, portrait: int) -> tuple[float, float]:
        """Yaw and pitch against the portrait's, which the live engine takes for the front."""
        yaw, pitch = clip.yaw_pitch[index] - clip.yaw_pitch[portrait]
        return float(yaw), float(pitch)

    def _speech_context(self, clip: Clip, index: int) -> F32:
        if clip.folder not in self._speech:
            return np.zeros((HEARD, 0), np.float32)
        return window(self._speech[clip.folder], index)

    def _mask(self, landmarks: F32, rng: np.random.RandomState) -> F32:
        side = self._side
        draw, kind = rng.rand(), rng.randint(3)
        pattern = holes(rng, side, self._hole_share)  # drawn always, so that the order is kept
        if draw >= self._masked:
            return np.ones((side, side), np.float32)
        return (pattern, head_mask(landmarks, side), lower_face_mask(landmarks, side))[kind]

    def _stack(self, rows: list[tuple[Any, ...]]) -> TalkBatch:
        *columns, prompts = zip(*rows, strict=True)
        tensors = [torch.from_numpy(np.stack(column).astype(np.float32)) for column in columns]
        named = zip((f.name for f in fields(TalkBatch)), [*tensors, prompts], strict=True)
        made: dict[str, Any] = dict(named)
        return TalkBatch(**made)


def _speech(clip: Clip, width: int) -> F32:
    features = clip.speech()
    if features is None or features.shape[1] != width:
        found = "no speech" if features is None else f"features of {features.shape[1]} numbers"
        raise DataError(
            f"{clip.folder.name} holds {found}, the model wants speech of {width}; prepare videos "
            "with sound, or set speech_features in [model]"
        )
    return features
