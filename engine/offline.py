"""A portrait and a sound file -> a video file, through the very engine that runs live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler

from engine.avatar import AvatarEngine
from engine.enroll import Identity
from engine.errors import MediaError
from engine.media import read_audio
from engine.types import Pcm, RgbImage, VideoFrame

SOUND_RATE_HZ = 48_000
SUFFIXES = (".mp4", ".mkv", ".mov")


@dataclass(frozen=True, slots=True)
class Report:
    """What `generate` did."""

    frames: int
    seconds: float  # of wall time, enrolment excluded
    realtime_factor: float  # seconds of video made per second; above 1 is faster than live


def frames_of(
    engine: AvatarEngine, identity: Identity, pcm: Pcm, seed: int = 0, prompt: str = ""
) -> Iterator[VideoFrame]:
    """Draw every frame of 16 kHz `pcm` (N,), a second of sound at a time."""
    state = engine.start(identity, seed=seed)
    engine.express(state, engine.read_prompt(prompt))
    hop = engine.config.stream.hop_samples
    padded = np.pad(pcm, (0, -len(pcm) % hop))
    second = hop * engine.config.stream.fps
    for start in range(0, len(padded), second):
        yield from engine.step(state, padded[start : start + second])
    yield from engine.flush(state)


def frame_count(engine: AvatarEngine, pcm: Pcm) -> int:
    """How many frames `pcm` gives; the last one may be only partly filled with sound."""
    return -(-len(pcm) // engine.config.stream.hop_samples)


def generate(
    engine: AvatarEngine,
    portrait: RgbImage,
    audio: Path,
    out: Path,
    *,
    seed: int = 0,
    prompt: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Make `out` from a portrait (H, W, 3) and a sound file; the same seed gives the same frames.

    Args:
        prompt: what the face expresses, such as "smile 0.6, brows up".
        progress: called with (frames done, frames in all) after each frame.

    Raises:
        MediaError: the sound cannot be read, or `out` has no video suffix.
        PortraitRefused: there is not exactly one usable face.
        PromptRefused: the profile cannot show it.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise MediaError(f"{out.name}: wanted a name ending in one of {', '.join(SUFFIXES)}")
    engine.read_prompt(prompt)  # refused before any work is done
    pcm = read_audio(audio)
    identity = engine.enroll(portrait)
    total = frame_count(engine, pcm)
    partial = out.with_name(f".{out.stem}.part{out.suffix}")
    begun = time.perf_counter()
    try:
        with av.open(str(partial), "w") as container:
            _mux(
                container,
                engine,
                identity,
                frames_of(engine, identity, pcm, seed, prompt),
                audio,
                total,
                progress,
            )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    seconds = time.perf_counter() - begun
    return Report(total, seconds, total / engine.config.stream.fps / seconds)


def _mux(
    container: av.container.OutputContainer,
    engine: AvatarEngine,
    identity: Identity,
    frames: Iterator[VideoFrame],
    audio: Path,
    total: int,
    progress: Callable[[int, int], None],
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
        progress(frame.index + 1, total)
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
