"""A portrait and a sound file -> a video file, through the very engine that runs live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.audio.sound_file import read_audio
from engine.avatar import AvatarEngine
from engine.enroll import Identity
from engine.errors import MediaError
from engine.motion.expression import Prompt
from engine.offline.casting import Casting
from engine.offline.frame_folder import FrameFolder, check_frame_folder
from engine.offline.mark import is_marked_video
from engine.offline.run_key import run_key
from engine.offline.video_file import SUFFIXES, write_video
from engine.outputs import check_file
from engine.render.base import FusedVideo
from engine.state import StreamState
from engine.types import Pcm, VideoFrame

SAVE_EVERY_S = 5.0  # of what a stopped run goes on from
Progress = Callable[[int, int], None]  # pieces of work done, and in all


@dataclass(frozen=True, slots=True)
class Report:
    """What `generate` did."""

    frames: int
    seconds: float  # of wall time, enrolment excluded
    realtime_factor: float  # seconds of video made per second; above 1 is faster than live
    pieces: int  # of work: a frame each; with latent fusion windows first, a piece a step
    resumed_at: int = 0  # pieces that an earlier run had done

    def __str__(self) -> str:
        """One line for whoever waited."""
        before = f" ({self.resumed_at / self.pieces:.0%} done before)" if self.resumed_at else ""
        return (
            f"{self.frames} frames{before} in {self.seconds:.1f} s, "
            f"{self.realtime_factor:.2g} x real time"
        )


@dataclass(frozen=True, slots=True)
class _Job:
    """What is drawn."""

    engine: AvatarEngine
    identity: Identity
    pcm: Pcm
    prompt: Prompt
    seed: int

    @property
    def total(self) -> int:
        """Frames."""
        return frame_count(self.engine, self.pcm)

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
            yield from self.engine.step(state, self.pcm[start : start + samples])
        yield from self.engine.flush(state)


def frames_of(
    engine: AvatarEngine, identity: Identity, pcm: Pcm, seed: int = 0, prompt: str = ""
) -> Iterator[VideoFrame]:
    """Draw every frame of 16 kHz `pcm` (N,) float32, a second of sound at a time: ceil(N / 640)."""
    job = _Job(engine, identity, pcm, engine.read_prompt(prompt), seed)
    yield from job.stream(job.start(), engine.config.stream.fps)


def frame_count(engine: AvatarEngine, pcm: Pcm) -> int:
    """How many frames `pcm` (N,) gives; the last one may be only partly filled with sound."""
    return -(-len(pcm) // engine.config.stream.hop_samples)


def check_output(out: Path) -> None:
    """Refuse a video that cannot be written, or would take the place of somebody else's files.

    Raises:
        MediaError: `out` has a suffix that no video has.
        ConfigError: as `check_file` and `check_frame_folder`.
    """
    if out.suffix == "":
        check_frame_folder(out)
        return
    if out.suffix.lower() not in SUFFIXES:
        raise MediaError(
            f"{out.name}: wanted a name ending in one of {', '.join(SUFFIXES)}, or in none for a "
            "folder of images"
        )
    check_file(out, is_marked_video)
    check_frame_folder(_beside(out))


def generate(
    engine: AvatarEngine,
    casting: Casting,
    audio: Path,
    out: Path,
    *,
    resumable: bool = False,
    save_every_s: float = SAVE_EVERY_S,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda notice: None,
) -> Report:
    """Make `out` from portraits and a sound file.

    Args:
        out: a video, or without a suffix a folder of PNG files.
        resumable: keep the frames in a folder beside the video until it is whole; a run that was
            stopped goes on from there, with the very frames it would have made. Latent fusion
            always does.
        progress: called with (pieces done, pieces in all) after each; see `Report.pieces`.
        say: called with each sentence that reading and enrolling the portraits has for people.

    Raises:
        MediaError: the sound cannot be read, or `out` has another suffix.
        ConfigError: `out` holds what this project did not make.
        PortraitRefused: there is no usable face.
        PromptRefused: the profile cannot show it.
    """
    check_output(out)
    prompt = engine.read_prompt(casting.prompt)
    pcm = read_audio(audio)
    first, *more = casting.portraits
    identity = engine.enroll(first, face=casting.face, more=more, mixed=casting.mixed)
    for notice in (*casting.notices, *engine.report(identity).notices):
        say(notice)
    job = _Job(engine, identity, pcm, prompt, casting.seed)
    video = out.suffix != ""
    begun, begin, pieces = time.perf_counter(), 0, job.total
    if resumable or job.fused or not video:
        key = run_key(engine.config, casting, audio)
        folder = FrameFolder(_beside(out) if video else out, key)
        begin, pieces, work = _work(job, folder, save_every_s)
        progress(begin, pieces)
        for done in work:
            progress(done, pieces)
        if video:
            write_video(folder.frames(job.total), identity.size, audio, out)
            folder.remove()
        else:
            folder.finish()
    else:
        frames = job.stream(job.start(), engine.config.stream.fps)
        write_video(_counted(frames, job.total, progress), identity.size, audio, out)
    seconds = time.perf_counter() - begun
    length = job.total / engine.config.stream.fps
    return Report(job.total, seconds, (pieces - begin) / pieces * length / seconds, pieces, begin)


def _beside(out: Path) -> Path:
    """Folder of the frames of a video in the making."""
    return out.with_name(f".{out.stem}.frames")


def _counted(frames: Iterator[VideoFrame], total: int, progress: Progress) -> Iterator[VideoFrame]:
    for frame in frames:
        yield frame
        progress(frame.index + 1, total)


def _work(job: _Job, folder: FrameFolder, save_every_s: float) -> tuple[int, int, Iterator[int]]:
    """Pieces that `folder` holds, pieces in all, and the work left: each piece's number when done."""
    if job.fused:
        film = job.engine.fuse(job.start(), job.pcm)
        if folder.kept is not None:
            film.unpack(folder.kept)
        work = _fused(film, folder, job.total, save_every_s)
        return film.done + folder.begin, film.total + job.total, work
    if folder.begin == job.total:
        return job.total, job.total, iter(())
    frames = _resumed(job, folder, save_every_s)
    return folder.begin, job.total, (frame.index + 1 for frame in frames)


def _resumed(job: _Job, folder: FrameFolder, save_every_s: float) -> Iterator[VideoFrame]:
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


def _fused(film: FusedVideo, folder: FrameFolder, total: int, save_every_s: float) -> Iterator[int]:
    """Sample what is missing of `film`, then decode what is missing in `folder`; yields pieces done."""
    saved = time.monotonic()
    for _ in range(film.total - film.done):
        film.work()
        if time.monotonic() - saved >= save_every_s or film.done == film.total:
            folder.save(0, film.pack())
            saved = time.monotonic()
        yield film.done
    kept = film.pack()
    for index in range(folder.begin, total):
        folder.add(VideoFrame(index, film.frame(index)))
        if time.monotonic() - saved >= save_every_s or index == total - 1:
            folder.save(index + 1, kept)
            saved = time.monotonic()
        yield film.total + index + 1
