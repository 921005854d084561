"""Frames and a sound file -> a video file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.resampler import AudioResampler

from engine.config import FPS
from engine.offline.mark import MARK
from engine.types import VideoFrame

SOUND_RATE_HZ = 48_000
SUFFIXES = (".mp4", ".mkv", ".mov")


def write_video(
    frames: Iterator[VideoFrame], size: tuple[int, int], audio: Path, out: Path
) -> None:
    """Encode `frames` and the sound of `audio` into `out`, which appears only when it is whole.

    Args:
        size: height and width of the frames, both even.
    """
    partial = out.with_name(f".{out.stem}.part{out.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            container.metadata["comment"] = MARK
            _mux(container, frames, size, audio)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _mux(
    container: av.container.OutputContainer,
    frames: Iterator[VideoFrame],
    size: tuple[int, int],
    audio: Path,
) -> None:
    video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "17"})
    video.height, video.width = size
    video.pix_fmt = "yuv420p"
    sound = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="stereo")
    voice = _sound_packets(audio, sound)
    ready = next(voice, None)
    for frame in frames:
        image = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")
        image.pts, image.time_base = frame.index, Fraction(1, FPS)
        container.mux(video.encode(image))
        while ready is not None and _seconds(ready) <= (frame.index + 1) / FPS:
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
