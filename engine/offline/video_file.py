"""Frames and a sound file -> a video file, coded beside the engine that draws."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from engine.audio.sound_file import spoken_track
from engine.config import FPS
from engine.offline.credentials import Credentials
from engine.offline.mark import MARK
from engine.offline.video_format import VideoFormat, video_format
from engine.types import RgbImage, VideoFrame

BT709, SRGB = 1, 13  # primaries and transfer curve, as every format numbers them
SOUND_RATE_HZ = 48_000
SOUND_BPS = 64_000  # a channel
# Chroma is the mean of the pixels under it. Reading all of them for it is quicker, too.
SCALING = Interpolation.AREA | Interpolation.FULL_CHR_H_INP
WAITING = 4  # frames drawn ahead of the coder, at most


def write_video(
    frames: Iterator[VideoFrame],
    size: tuple[int, int],
    audio: Path,
    out: Path,
    *,
    alpha: bool,
    credentials: Credentials | None = None,
) -> None:
    """Encode `frames` and what is spoken in `audio` into `out`, which appears only when it is whole.

    Args:
        size: height and width of the frames, both even.
        alpha: whether the frames are (H, W, 4).
        credentials: sign it, in the file or beside it.

    Raises:
        MediaError: the name is that of no video, or of one without alpha.
    """
    how = video_format(out, alpha=alpha)
    partial = out.with_name(f".{out.stem}.part{out.suffix}")
    try:
        with av.open(str(partial), "w") as container, ThreadPoolExecutor(1) as coder:
            container.metadata["comment"] = MARK
            writer = _Writer(container, how, size, audio)
            coded: deque[Future[None]] = deque()
            try:
                for frame in frames:
                    coded.append(coder.submit(writer.add, frame))
                    if len(coded) > WAITING:
                        coded.popleft().result()
                coded.append(coder.submit(writer.finish))
                while coded:
                    coded.popleft().result()
            finally:
                coder.shutdown(cancel_futures=True)
        if credentials is not None:
            credentials.sign(partial, out)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


class _Writer:
    """Codes pictures and, as far as they have come, the sound."""

    def __init__(
        self,
        container: av.container.OutputContainer,
        how: VideoFormat,
        size: tuple[int, int],
        audio: Path,
    ) -> None:
        self._container, self._pixels = container, how.pixels
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame
        video = container.add_stream(how.codec, rate=FPS, options=dict(how.options))
        assert isinstance(video, VideoStream)
        self._video = video
        self._video.height, self._video.width = size
        self._video.pix_fmt = how.pixels
        codec = self._video.codec_context
        codec.color_range, codec.colorspace = ColorRange.MPEG, Colorspace.ITU709
        codec.color_primaries, codec.color_trc = BT709, SRGB
        self._voice = _sound_packets(audio, container, how)
        self._ready = next(self._voice, None)

    def add(self, frame: VideoFrame) -> None:
        """Code one frame, and the sound until its end."""
        image = self._coloured(frame.rgb)
        image.pts, image.time_base = frame.index, Fraction(1, FPS)
        self._container.mux(self._video.encode(image))
        self._sound_until((frame.index + 1) / FPS)

    def finish(self) -> None:
        """Code what is held back."""
        self._container.mux(self._video.encode(None))
        self._sound_until(float("inf"))

    def _coloured(self, rgb: RgbImage) -> av.VideoFrame:
        """A picture (H, W, 3 or 4), which is sRGB, in BT.709's luma and chroma."""
        form = "rgba" if rgb.shape[2] == 4 else "rgb24"
        image = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(rgb), format=form)
        return self._reformatter.reformat(
            image,
            format=self._pixels,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALING,
        )

    def _sound_until(self, seconds: float) -> None:
        while self._ready is not None and _seconds(self._ready) <= seconds:
            self._container.mux(self._ready)
            self._ready = next(self._voice, None)


def _seconds(packet: av.Packet[Any]) -> float:
    return 0.0 if packet.pts is None else float(packet.pts * packet.time_base)


def _sound_packets(
    audio: Path, container: av.container.OutputContainer, how: VideoFormat
) -> Iterator[av.Packet[Any]]:
    """What is spoken in `audio`, of which the first packet makes the track."""
    track = spoken_track(audio)
    with av.open(str(audio)) as source:
        channels = min(source.streams.audio[track].channels, 2)
        layout = "mono" if channels == 1 else "stereo"
        stream = container.add_stream(how.sound, rate=SOUND_RATE_HZ, layout=layout)
        assert isinstance(stream, AudioStream)
        codec = stream.codec_context
        codec.bit_rate, codec.options = channels * SOUND_BPS, dict(how.sound_options)
        codec.open()  # which tells the frame size
        resampler = AudioResampler(codec.format, layout, SOUND_RATE_HZ, frame_size=codec.frame_size)
        for frame in source.decode(audio=track):
            frame.pts = None
            for piece in resampler.resample(frame):
                yield from stream.encode(piece)
        for piece in resampler.resample(None):
            yield from stream.encode(piece)
    yield from stream.encode(None)
