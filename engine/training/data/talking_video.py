"""A talking video -> frames at 25 a second and 16 kHz sound that begin at the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from engine.audio.sound_file import RATE, read_audio
from engine.errors import MediaError
from engine.types import Pcm, RgbImage

FPS = 25
HOP = RATE // FPS
LONGEST_GAP_S = 10.0  # between two frames; more is a broken clock


def frames_at(path: Path, fps: int = FPS) -> Iterator[RgbImage]:
    """Decode the first video track to RGB (H, W, 3); frame k is shown nearest to k / fps seconds.

    Turned as the file says it should be shown. Time counts from the first frame.

    Raises:
        MediaError: the file cannot be read to its end, holds no frames, or its clock jumps.
    """
    if not path.is_file():
        raise MediaError(f"no file {path}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path.name} has no video track")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from _resample(_timed(container, stream), fps, path.name)
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise MediaError(f"{path.name} cannot be read as a video: {error}") from error


def _timed(container: Any, stream: Any) -> Iterator[tuple[float, RgbImage]]:
    rate = float(stream.average_rate or FPS)
    for index, frame in enumerate(container.decode(stream)):
        time = index / rate if frame.time is None else float(frame.time)
        rgb: RgbImage = frame.to_ndarray(format="rgb24")
        turns = round(frame.rotation / 90) % 4  # counter-clockwise quarter turns
        yield time, np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _resample(timed: Iterator[tuple[float, RgbImage]], fps: int, name: str) -> Iterator[RgbImage]:
    first = next(timed, None)
    if first is None:
        raise MediaError(f"{name} holds no frames")
    start, rgb = first
    now, lasts, k = 0.0, 1 / fps, 0
    for absolute, following in timed:
        time = absolute - start
        if not now < time < now + LONGEST_GAP_S:
            raise MediaError(f"{name}: its clock goes from {now:.2f} s to {time:.2f} s")
        while k / fps < (now + time) / 2:
            yield rgb
            k += 1
        now, lasts, rgb = time, time - now, following
    while k / fps < now + lasts - 1e-6:
        yield rgb
        k += 1


def sound_of(path: Path, frames: int, sound: Path | None = None) -> Pcm | None:
    """The sound under the first `frames` frames of a video: (frames * 640,) at 16 kHz.

    Args:
        sound: the file that holds the sound when it is another one (MEAD); it starts with it.

    Returns:
        None when there is no sound track at all.

    Raises:
        MediaError: there is one, and it is damaged.
    """
    lead = 0
    if sound is None:
        try:
            with av.open(str(path)) as container:
                if not container.streams.audio:
                    return None
                lead = round(_start(container, "video") * RATE - _start(container, "audio") * RATE)
        except (av.FFmpegError, UnicodeDecodeError) as error:
            raise MediaError(f"{path.name} cannot be read: {error}") from error
    pcm = read_audio(sound or path)
    pcm = pcm[lead:] if lead > 0 else np.pad(pcm, (-lead, 0))
    wanted = frames * HOP
    return np.pad(pcm[:wanted], (0, max(0, wanted - len(pcm))))


def _start(container: Any, kind: str) -> float:
    stream = getattr(container.streams, kind)[0] if getattr(container.streams, kind) else None
    if stream is None or stream.start_time is None:
        return 0.0
    return float(stream.start_time * stream.time_base)
