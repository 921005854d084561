"""The frames of a whole sound drawn: at one go, or piece by piece into a folder that is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from engine.avatar import AvatarEngine
from engine.enroll import Identity
from engine.motion.expression import Prompt
from engine.offline.frame_folder import FrameFolder
from engine.render.base import FusedVideo
from engine.state import StreamState
from engine.types import Pcm, RgbImage, VideoFrame
from engine.watermark.mark import Mark


@dataclass(frozen=True, slots=True)
class Job:
    """What is drawn."""

    engine: AvatarEngine
    identity: Identity
    pcm: Pcm
    prompt: Prompt
    seed: int
    finish: Callable[[RgbImage], RgbImage] = lambda frame: frame  # before it is written
    mark: Mark | None = None  # then

    @property
    def total(self) -> int:
        """Frames; the last one may be only partly filled with sound."""
        return -(-len(self.pcm) // self.engine.config.stream.hop_samples)

    @property
    def seconds(self) -> float:
        """Length of the video."""
        return self.total / self.engine.config.stream.fps

    @property
    def fused(self) -> bool:
        """Whether the frames are sampled together."""
        return self.engine.config.diffusion.long_video == "fusion"

    def start(self) -> StreamState:
        """State of a stream at its first frame."""
        state = self.engine.start(self.identity, seed=self.seed)
        self.engine.set_prompt(state, self.prompt)
        return state

    def stream(self, state: StreamState, hops: int) -> Iterator[VideoFrame]:
        """Every frame from `state` on, fed `hops` frames of sound at a time."""
        samples = hops * self.engine.config.stream.hop_samples
        for start in range(0, len(self.pcm), samples):
            yield from self._finished(self.engine.step(state, self.pcm[start : start + samples]))
        yield from self._finished(self.engine.flush(state))

    def _finished(self, frames: list[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            yield replace(frame, rgb=self.marked(self.finish(frame.rgb)))

    def marked(self, rgb: RgbImage) -> RgbImage:
        """A frame (H, W, 3), or (H, W, 4) with alpha, with the mark in it, if there is to be one."""
        return rgb if self.mark is None else self.mark.on_rgb(rgb)


def work(job: Job, folder: FrameFolder, save_every_s: float) -> tuple[int, int, Iterator[int]]:
    """Pieces that `folder` holds, pieces in all, and the work left: each piece's number when done."""
    if job.fused:
        film = job.engine.fuse(job.start(), job.pcm)
        if folder.kept is not None:
            film.unpack(folder.kept)
        left = _fused(film, folder, job, save_every_s)
        return film.done + folder.begin, film.total + job.total, left
    if folder.begin == job.total:
        return job.total, job.total, iter(())
    frames = _resumed(job, folder, save_every_s)
    return folder.begin, job.total, (frame.index + 1 for frame in frames)


def _resumed(job: Job, folder: FrameFolder, save_every_s: float) -> Iterator[VideoFrame]:
    """Draw what is missing in `folder`, one frame of sound at a time."""
    engine, state = job.engine, job.start()
    if folder.kept is not None:
        engine.resume(state, folder.begin, folder.kept)
    saved = time.monotonic()
    for frame in job.stream(state, 1):
        folder.add(frame)
        ahead = state.next_index != frame.index + 1  # the last step drew several
        if not ahead and time.monotonic() - saved >= save_every_s:
            folder.save(frame.index + 1, engine.pack(state))
            saved = time.monotonic()
        yield frame
    folder.save(state.next_index, engine.pack(state))


def _fused(film: FusedVideo, folder: FrameFolder, job: Job, save_every_s: float) -> Iterator[int]:
    """Sample what is missing of `film`, then decode what is missing in `folder`; yields pieces done."""
    saved = time.monotonic()
    while film.done < film.total:
        film.work()
        if time.monotonic() - saved >= save_every_s or film.done == film.total:
            folder.save(0, film.pack())
            saved = time.monotonic()
        yield film.done
    kept = film.pack()
    total = job.total
    for index in range(folder.begin, total):
        folder.add(VideoFrame(index, job.marked(film.frame(index))))
        if time.monotonic() - saved >= save_every_s or index == total - 1:
            folder.save(index + 1, kept)
            saved = time.monotonic()
        yield film.total + index + 1
