"""Pictures and sound kept as they were made: FFV1 in RGB and PCM, in one .mkv file."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from engine.config import FPS, SAMPLE_RATE_HZ
from engine.errors import MediaError
from engine.types import Pcm, RgbImage


def write_lossless(frames: Iterable[RgbImage], pcm: Pcm, out: Path) -> int:
    """Write frames (H, W, 3) of 25 a second and their sound (N,); returns how many there were.

    The file appears only when it is whole.

    Raises:
        MediaError: there are no frames.
    """
    partial = out.with_name(f".{out.stem}.part{out.suffix}")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with av.open(str(partial), "w") as file:
            video, sound = file.add_stream("ffv1", rate=FPS), file.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")  # fmt: skip
            assert isinstance(video, VideoStream)
            assert isinstance(sound, AudioStream)
            video.pix_fmt = "bgr0"
            for rgb in frames:
                if not count:
                    video.height, video.width = rgb.shape[:2]
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
                picture.pts, picture.time_base = count, Fraction(1, FPS)
                file.mux(video.encode(picture.reformat(format="bgr0")))
                count += 1
            if not count:
                raise MediaError(f"{out.name}: there are no frames to write")
            file.mux(video.encode(None))
            heard = av.AudioFrame.from_ndarray(to_pcm16(pcm)[None], format="s16", layout="mono")
            heard.sample_rate, heard.pts = SAMPLE_RATE_HZ, 0
            file.mux(sound.encode(heard))
            file.mux(sound.encode(None))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return count


def to_pcm16(pcm: Pcm) -> NDArray[np.int16]:
    """Sound (N,) in [-1, 1] as 16-bit samples (N,)."""
    return (np.clip(pcm, -1, 1) * 32767).astype(np.int16)
