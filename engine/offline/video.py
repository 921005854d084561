"""A portrait and a sound file -> a video file, through the very engine that runs live."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler

from engine.audio.sound_file import MARK, read_audio
from engine.avatar import AvatarEngine
from engine.enroll import Identity
from engine.errors import MediaError
from engine.offline.frame_folder import FrameFolder
from engine.render.base import FusedVideo
from engine.state import StreamState
from engine.types import Pcm, RgbImage, VideoFrame

SOUND_RATE_HZ = 48_000
SUFFIXES = (".mp4", ".mkv", ".mov")
SAVE_EVERY_S = 5.0  # of what a stopped run goes on from


@dataclass(frozen=True, slots=True)
class Report:
    """What `generate` did."""

    frames: int
    seconds: float  # of wall time, enrolment excluded
    realtime_factor: float  # seconds of video made per second; above 1 is faster than live
    pieces: int  # of work: a frame each; with latent fusion windows first, a piece a step
    resumed_at: int = 0  # pieces that an earlier run had done


@dataclass(frozen=True, slots=True, kw_only=True)
class Casting:
    """Who is shown, and how: the portraits of one person, and other people mixed in."""

    portraits: Sequence[RgbImage]  # (H, W, 3); the first is what the face moves from
    mixed: Sequence[tuple[RgbImage, float]] = ()
    prompt: str = ""  # such as "smile 0.6, brows up"
    seed: int = 0  # the same seed gives the same frames


def frames_of(
    engine: AvatarEngine, identity: Identity, pcm: Pcm, seed: int = 0, prompt: str = ""
) -> Iterator[VideoFrame]:
    """Draw every frame of 16 kHz `pcm` (N,), a second of sound at a time."""
    state = _start(engine, identity, seed, prompt)
    yield from _stream(engine, state, pcm, engine.config.stream.fps)


def _start(engine: AvatarEngine, identity: Identity, seed: int, prompt: str) -> StreamState:
    state = engine.start(identity, seed=seed)
    engine.set_prompt(state, engine.read_prompt(prompt))
    return state


def _stream(engine: AvatarEngine, state: StreamState, pcm: Pcm, hops: int) -> Iterator[VideoFrame]:
    """Give the engine `hops` frames of sound at a time."""
    hop = engine.config.stream.hop_samples
    padded = _padded(engine, pcm)
    for start in range(0, len(padded), hops * hop):
        yield from engine.step(state, padded[start : start + hops * hop])
    yield from engine.flush(state)


def _padded(engine: AvatarEngine, pcm: Pcm) -> Pcm:
    """Silence fills the last frame."""
    return np.pad(pcm, (0, -len(pcm) % engine.config.stream.hop_samples))


def _resumed(
    engine: AvatarEngine,
    identity: Identity,
    pcm: Pcm,
    casting: Casting,
    folder: FrameFolder,
    save_every_s: float,
) -> Iterator[VideoFrame]:
    """Draw what is missing in `folder`, one frame of sound at a time."""
    state = _start(engine, identity, casting.seed, casting.prompt)
    if folder.kept is not None:
        engine.resume(state, folder.begin, folder.kept)
    saved = time.monotonic()
    for frame in _stream(engine, state, pcm, 1):
        folder.add(frame)
        ahead = state.next_index != frame.index + 1  # the last step drew several
        if not ahead and time.monotonic() - saved >= save_every_s:
            folder.save(frame.index + 1, engine.pack(state))
            saved = time.monotonic()
        yield frame
    folder.save(state.next_index, engine.pack(state))


def _together(engine: AvatarEngine) -> bool:
    return engine.config.diffusion.long_video == "fusion"


def _work(
    engine: AvatarEngine,
    identity: Identity,
    pcm: Pcm,
    casting: Casting,
    folder: FrameFolder,
    save_every_s: float,
) -> tuple[int, int, Iterator[int]]:
    """Pieces that `folder` holds, pieces in all, and the work left: each piece's number when done."""
    total = frame_count(engine, pcm)
    if _together(engine):
        state = _start(engine, identity, casting.seed, casting.prompt)
        film = engine.fuse(state, _padded(engine, pcm))
        if folder.kept is not None:
            film.unpack(folder.kept)
        work = _fused(film, folder, total, save_every_s)
        return film.done + folder.begin, film.total + total, work
    if folder.begin == total:
        return total, total, iter(())
    frames = _resumed(engine, identity, pcm, casting, folder, save_every_s)
    return folder.begin, total, (frame.index + 1 for frame in frames)


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


def frame_count(engine: AvatarEngine, pcm: Pcm) -> int:
    """How many frames `pcm` gives; the last one may be only partly filled with sound."""
    return -(-len(pcm) // engine.config.stream.hop_samples)


def generate(
    engine: AvatarEngine,
    casting: Casting,
    audio: Path,
    out: Path,
    *,
    resumable: bool = False,
    save_every_s: float = SAVE_EVERY_S,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Make `out` from portraits and a sound file.

    Args:
        out: a video, or without a suffix a folder of PNG files.
        resumable: keep the frames in a folder beside the video until it is whole; a run that was
            stopped goes on from there, with the very frames it would have made. Latent fusion
            always does.
        progress: called with (pieces done, pieces in all) after each; see `Report.pieces`.

    Raises:
        MediaError: the sound cannot be read, or `out` has another suffix.
        PortraitRefused: there is not exactly one usable face.
        PromptRefused: the profile cannot show it.
    """
    video = out.suffix != ""
    if video and out.suffix.lower() not in SUFFIXES:
        raise MediaError(
            f"{out.name}: wanted a name ending in one of {', '.join(SUFFIXES)}, or in none for a "
            "folder of pictures"
        )
    engine.read_prompt(casting.prompt)  # refused before any work is done
    pcm = read_audio(audio)
    identity = engine.enroll(casting.portraits[0], more=casting.portraits[1:], mixed=casting.mixed)
    total = frame_count(engine, pcm)
    begun, begin, pieces = time.perf_counter(), 0, total
    if resumable or _together(engine) or not video:
        path = out.with_name(f".{out.stem}.frames") if video else out
        folder = FrameFolder(path, _key(engine, casting, audio))
        begin, pieces, work = _work(engine, identity, pcm, casting, folder, save_every_s)
        progress(begin, pieces)
        for done in work:
            progress(done, pieces)
        if video:
            _write(engine, identity, folder.frames(total), audio, out)
            folder.remove()
        else:
            folder.finish()
    else:
        frames = frames_of(engine, identity, pcm, casting.seed, casting.prompt)
        _write(engine, identity, _counted(frames, total, progress), audio, out)
    seconds = time.perf_counter() - begun
    length = total / engine.config.stream.fps
    return Report(total, seconds, (pieces - begin) / pieces * length / seconds, pieces, begin)


def _counted(
    frames: Iterator[VideoFrame], total: int, progress: Callable[[int, int], None]
) -> Iterator[VideoFrame]:
    for frame in frames:
        yield frame
        progress(frame.index + 1, total)


def _key(engine: AvatarEngine, casting: Casting, audio: Path) -> str:
    """A digest of all that the frames depend on."""
    digest = hashlib.sha256(f"{engine.config}{casting.prompt!r}{casting.seed}".encode())
    for rgb, share in [*((rgb, 1.0) for rgb in casting.portraits), *casting.mixed]:
        digest.update(f"{rgb.shape}{share}".encode() + np.ascontiguousarray(rgb).tobytes())
    digest.update(audio.read_bytes())
    return digest.hexdigest()


def _write(
    engine: AvatarEngine,
    identity: Identity,
    frames: Iterator[VideoFrame],
    audio: Path,
    out: Path,
) -> None:
    """Encode and mux; `out` appears only when it is whole."""
    partial = out.with_name(f".{out.stem}.part{out.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            container.metadata["comment"] = MARK
            _mux(container, engine, identity, frames, audio)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _mux(
    container: av.container.OutputContainer,
    engine: AvatarEngine,
    identity: Identity,
    frames: Iterator[VideoFrame],
    audio: Path,
) -> None:
    fps = engine.config.stream.fps
    video = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "17"})
    video.height, video.width = identity.size
    video.pix_fmt = "yuv420p"
    sound = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo")
    voice = _sound_packets(audio, sound)
    ready = next(voice, None)
    for frame in frames:
        picture = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")
        picture.pts, picture.time_base = frame.index, Fraction(1, fps)
        container.mux(video.encode(picture))
        while ready is not None and _seconds(ready) <= (frame.index + 1) / fps:
            container.mux(ready)
            ready = next(voice, None)
    container.mux(video.encode(None))
    while ready is not None:
        container.mux(ready)
        ready = next(voice, None)


def _seconds(packet: av.Packet[Any]) -> float:
    return 0.0 if packet.pts is None else float(packet.pts * packet.time_base)


def _sound_packets(audio: Path, stream: av.AudioStream) -> Iterator[av.Packet[Any]]:
    resampler = AudioResampler("fltp", "stereo", SOUND_RATE_HZ, frame_size=1024)
    with av.open(str(audio)) as source:
        for frame in source.decode(audio=0):
            frame.pts = None
            for piece in resampler.resample(frame):
                yield from stream.encode(piece)
        for piece in resampler.resample(None):
            yield from stream.encode(piece)
    yield from stream.encode(None)
