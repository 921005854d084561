"""The pose-given protocol: a film's own landmarks and placement drive the frames, in place of the sound.

Only so can a frame be compared pixel by pixel with the film's. The portrait is the film's first frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.avatar import AvatarEngine
from engine.errors import DataError
from engine.face.detector import SCORE_NAMES, Face, FaceReader
from engine.face.landmarks import Affine, apply, crop_transform, head_shift, similarity
from engine.face.topology import LEFT_EYE, RIGHT_EYE, STABLE
from engine.render.base import FrameCondition
from engine.state import StreamState
from engine.types import Pcm, RgbImage, VideoFrame

F32 = NDArray[np.float32]
SHUT = 0.6  # score of an eye that is closed
_EYES = [*RIGHT_EYE, *LEFT_EYE]
_BLINKS = [SCORE_NAMES.index(name) for name in ("eyeBlinkRight", "eyeBlinkLeft")]


@dataclass(frozen=True, slots=True)
class Track:
    """What a film's face does, in crop units of its first frame."""

    targets: F32  # (T, 478, 2) landmarks, eyes open
    blinks: F32  # (T, 2) right and left, in [0, 1]
    placements: F32  # (T, 6) as `FrameCondition.placement`
    lost: int = 0  # frames without a face; each shows the one before


def read_track(reader: FaceReader, frames: Iterable[RgbImage]) -> Track:
    """Follow the face through frames (H, W, 3).

    Raises:
        DataError: the first frame has no face.
    """
    rows: list[tuple[F32, F32, F32]] = []
    lost = 0
    first: Face | None = None
    to_crop: Affine | None = None
    for rgb in frames:
        found = reader.faces(rgb)
        if first is None or to_crop is None:
            if not found:
                raise DataError("pose-given: the first frame has no face; say start_s in set.toml")
            first = found[0]
            to_crop = crop_transform(first.landmarks)
        if found:
            rows.append(_row(first, found[0], to_crop))
        else:
            lost += 1
            rows.append(rows[-1])
    targets, blinks, placements = (np.stack(part) for part in zip(*rows, strict=True))
    return Track(targets, blinks, placements, lost)


def _row(first: Face, face: Face, to_crop: Affine) -> tuple[F32, F32, F32]:
    source, target = apply(to_crop, first.landmarks), apply(to_crop, face.landmarks)
    stable = list(STABLE)
    head = similarity(source[stable], target[stable])
    target[_EYES] = apply(head, source[_EYES])  # lids come down over open eyes
    rest, now = first.scores[_BLINKS], face.scores[_BLINKS]
    blink = np.clip((now - rest) / np.maximum(SHUT - rest, 0.1), 0, 1).astype(np.float32)
    turn = np.array([face.yaw - first.yaw, face.pitch - first.pitch], np.float32)
    return target, blink, np.concatenate([turn, head_shift(source, target)])


class PoseGivenEngine(AvatarEngine):
    """An engine whose frames do what a film's face does, from the first sample of sound that is not 0."""

    _track: Track | None = None

    def follow(self, frames: Iterable[RgbImage]) -> Track:
        """Drive every stream by frames (H, W, 3) of a film from now on; returns what was read."""
        self._track = read_track(self._enroller.reader, frames)
        return self._track

    def start(self, identity: Any, *, seed: int = 0) -> StreamState:
        """Make the state of a new stream."""
        state = super().start(identity, seed=seed)
        state.noise = _Noise(state.noise)
        return state

    def step_many(self, streams: Sequence[tuple[StreamState, Pcm]]) -> list[list[VideoFrame]]:
        """As the engine does, each with its own PCM (N,); notes in which frame the sound of each begins."""
        for state, pcm in streams:
            spoken = np.flatnonzero(pcm)
            if state.noise.begins is None and len(spoken):
                hop = self.config.stream.hop_samples
                state.noise.begins = (state.samples + int(spoken[0])) // hop
        return super().step_many(streams)

    def _condition(
        self, state: StreamState, coefficients: F32, pose: F32, energy: float
    ) -> FrameCondition:
        condition = super()._condition(state, coefficients, pose, energy)
        noise: _Noise = state.noise
        begins = noise.begins
        condition = replace(condition, noise=noise.noise)
        if self._track is None or begins is None:
            return condition
        row = min(max(condition.index - begins, 0), len(self._track.targets) - 1)
        return replace(
            condition,
            target=self._track.targets[row],
            blink=self._track.blinks[row],
            placement=self._track.placements[row],
            coefficients=None,
        )


@dataclass(slots=True)
class _Noise:
    """The noise of a stream, and the frame in which its sound begins."""

    noise: Any
    begins: int | None = None
