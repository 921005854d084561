"""A portrait and a sound file -> a video file, through the very engine that runs live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine.audio.sound_file import read_audio
from engine.avatar import AvatarEngine
from engine.enroll import Identity
from engine.face.image_colour import GREY
from engine.face.image_file import ON_GREY
from engine.offline.casting import Casting
from engine.offline.credentials import MISSING, holds_own, sidecar_of
from engine.offline.cut_out import fitted, laid_on, lifted
from engine.offline.frame_folder import FrameFolder
from engine.offline.job import Job, work
from engine.offline.output import Held, check_space, claim_output
from engine.offline.run_key import run_key
from engine.offline.video_file import write_video
from engine.offline.video_format import keeps_alpha
from engine.types import Pcm, RgbImage, VideoFrame

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


def frames_of(
    engine: AvatarEngine, identity: Identity, pcm: Pcm, seed: int = 0, prompt: str = ""
) -> Iterator[VideoFrame]:
    """Draw every frame of 16 kHz `pcm` (N,) float32, a second of sound at a time: ceil(N / 640)."""
    job = Job(engine, identity, pcm, engine.read_prompt(prompt), seed)
    yield from job.stream(job.start(), engine.config.stream.fps)


def generate(
    engine: AvatarEngine,
    casting: Casting,
    audio: Path,
    out: Path | Held,
    *,
    resumable: bool = False,
    save_every_s: float = SAVE_EVERY_S,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda notice: None,
) -> Report:
    """Make `out` from portraits and a sound file.

    Args:
        out: a video, or without a suffix a folder of PNG files; held already, or held meanwhile.
        resumable: keep the frames in a folder beside the video until it is whole; a run that was
            stopped goes on from there, with the very frames it would have made. Latent fusion
            always does.
        progress: called with (pieces done, pieces in all) after each; see `Report.pieces`.
        say: called with each sentence that reading and enrolling the portraits has for people.

    Raises:
        MediaError: the sound cannot be read, or `out` has another suffix.
        ConfigError: `out` holds what this project did not make, or cannot be written.
        PortraitRefused: there is no usable face.
        PromptRefused: the profile cannot show it.
    """
    with nullcontext(out) if isinstance(out, Held) else claim_output(out) as held:
        prompt = engine.read_prompt(casting.prompt)
        pcm = read_audio(audio)
        seconds = len(pcm) / engine.config.stream.sample_rate_hz
        check_space(held, casting, engine.config.max_side, seconds, kept=resumable)
        first, *more = casting.portraits
        identity = engine.enroll(
            first, face=casting.face, alpha=casting.alpha, more=more, mixed=casting.mixed
        )
        for notice in _notices(casting, identity, held):
            say(notice)
        finish = _finish(casting, identity.size, held.path)
        alpha, marks = finish is lifted, held.provenance
        key = run_key(engine.config, casting, audio, alpha=alpha, marked=marks.dependence)
        job = Job(engine, identity, pcm, prompt, casting.seed, finish, marks.mark_of(key))
        write = _writer(held, identity, audio, alpha=alpha)
        began, begin, pieces = time.perf_counter(), 0, job.total
        if resumable or job.fused or held.is_folder:
            folder = FrameFolder(held.beside, key)
            begin, pieces = _kept(job, folder, save_every_s, progress)
            if held.is_folder:
                folder.finish(job.total, marks.credentials)
            else:
                write(folder.frames(job.total))
                folder.remove()
        else:
            write(_counted(job.stream(job.start(), engine.config.stream.fps), job.total, progress))
    seconds = time.perf_counter() - began
    speed = (pieces - begin) / pieces * job.seconds / seconds
    return Report(job.total, seconds, speed, pieces, begin)


def _writer(
    held: Held, identity: Identity, audio: Path, *, alpha: bool
) -> Callable[[Iterator[VideoFrame]], None]:
    """What codes frames into the video, with its sound, and signs it."""
    return partial(
        write_video,
        size=identity.size,
        audio=audio,
        out=held.path,
        alpha=alpha,
        credentials=held.provenance.credentials,
    )


def _kept(
    job: Job, folder: FrameFolder, save_every_s: float, progress: Progress
) -> tuple[int, int]:
    """Draw all that `folder` has not; returns the pieces that it had, and those in all."""
    begin, pieces, left = work(job, folder, save_every_s)
    progress(begin, pieces)
    for done in left:
        progress(done, pieces)
    return begin, pieces


def _notices(casting: Casting, identity: Identity, held: Held) -> Iterator[str]:
    """What there is to say to people before the frames are drawn."""
    yield from casting.notices
    yield from identity.report.notices
    (height, width), whole = identity.size, casting.size
    if whole and min(whole[0] - height, whole[1] - width) > 1:
        yield (
            f"The picture has {whole[1]}x{whole[0]} pixels and is drawn with {width}x{height}; "
            "see --max-side."
        )
    if casting.alpha is not None and casting.background is None and not keeps_alpha(held.path):
        yield f"{ON_GREY} .mov, .webm and a folder keep it transparent; see --background."
    if held.provenance.credentials is None:
        yield MISSING
    elif not held.is_folder and not holds_own(held.path):
        yield f"{held.path.name} cannot hold its content credentials: {sidecar_of(held.path).name} has them."


def _finish(casting: Casting, size: tuple[int, int], out: Path) -> Callable[[RgbImage], RgbImage]:
    """What is done to each frame of that size before it is written."""
    if casting.alpha is None:
        return _as_it_is
    if casting.background is None and keeps_alpha(out):
        return lifted
    behind = np.array([[GREY]], np.uint8) if casting.background is None else casting.background
    return partial(laid_on, background=fitted(behind, *size))


def _as_it_is(frame: RgbImage) -> RgbImage:
    return frame


def _counted(frames: Iterator[VideoFrame], total: int, progress: Progress) -> Iterator[VideoFrame]:
    for frame in frames:
        yield frame
        progress(frame.index + 1, total)
