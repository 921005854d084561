"""Pictures and sound of a session -> H.264 and AAC in one container, in step. Blocking."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from engine.config import FPS
from engine.offline.mark import MARK
from server.live.pacing import VIDEO_RATE_HZ
from server.sound.intake import SOUND_RATE_HZ, Pcm48

KEY_S = 1.0  # from one key frame to the next: who joins a stream waits for one
SOUND_BPS = 96_000
X264 = {"preset": "veryfast", "tune": "zerolatency", "crf": "20"}
BT709 = 1  # primaries, transfer curve and matrix have the same number


def fitted(
    frame: av.VideoFrame, width: int, height: int, reformatter: VideoReformatter
) -> av.VideoFrame:
    """`frame` (yuv420p) as large as it fits into that size, black around it, no time stamp.

    A frame's own `reformat` keeps its state in the frame, which other threads use as well.
    """
    if (frame.width, frame.height) == (width, height):
        return frame
    scale = min(width / frame.width, height / frame.height)
    inner = [max(2, round(n * scale) // 2 * 2) for n in (frame.width, frame.height)]
    small = reformatter.reformat(frame, inner[0], inner[1], "rgb24").to_ndarray()
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = small
    return av.VideoFrame.from_ndarray(canvas, format="rgb24").reformat(format="yuv420p")


class Muxer:
    """Encodes into `container`; time 0 is the picture `first`, whose size is kept."""

    def __init__(
        self, container: OutputContainer, first: av.VideoFrame, *, most_bps: int | None = None
    ) -> None:
        assert first.pts is not None
        container.metadata["comment"] = MARK
        self._container = container
        self._origin = first.pts  # at 90 kHz
        self._heard = 0  # samples encoded
        self._key_at = 0
        self._reformatter = VideoReformatter()
        limits = {"maxrate": str(most_bps), "bufsize": str(most_bps)} if most_bps else {}
        self._video = container.add_stream("libx264", rate=FPS, options={**X264, **limits})
        self._video.width, self._video.height = first.width, first.height
        self._video.pix_fmt = "yuv420p"
        codec = self._video.codec_context
        codec.time_base = Fraction(1, VIDEO_RATE_HZ)
        codec.color_primaries = codec.color_trc = codec.colorspace = BT709
        codec.color_range = ColorRange.MPEG
        codec.gop_size = round(KEY_S * FPS)
        codec.thread_count = 1  # the other cores draw faces
        self._sound = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono")
        self._sound.codec_context.bit_rate = SOUND_BPS

    def show(self, frame: av.VideoFrame) -> None:
        """Encode a picture (yuv420p, BT.601, pts at 90 kHz); later than the one before."""
        assert frame.pts is not None
        pts = frame.pts - self._origin
        whole = fitted(frame, self._video.width, self._video.height, self._reformatter)
        coded = self._reformatter.reformat(
            whole, src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU709
        )
        coded.pts, coded.time_base = pts, Fraction(1, VIDEO_RATE_HZ)
        coded.pict_type = PictureType.NONE
        if pts >= self._key_at:
            coded.pict_type = PictureType.I
            self._key_at = pts + round(KEY_S * VIDEO_RATE_HZ)
        self._container.mux(self._video.encode(coded))

    def hear(self, pts: int, pcm: Pcm48) -> None:
        """Encode sound (N,) with its time stamp at 48 kHz; what is missing before it is silence."""
        begin = pts - self._origin * SOUND_RATE_HZ // VIDEO_RATE_HZ
        gap = begin - self._heard
        pcm = np.concatenate([np.zeros(max(gap, 0), np.int16), pcm[max(-gap, 0) :]])
        if not len(pcm):
            return
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SOUND_RATE_HZ, self._heard
        frame.time_base = Fraction(1, SOUND_RATE_HZ)
        self._heard += len(pcm)
        self._container.mux(self._sound.encode(frame))

    def finish(self) -> None:
        """Encode what is held back; the container is closed by who opened it."""
        self._container.mux(self._video.encode(None))
        self._container.mux(self._sound.encode(None))
