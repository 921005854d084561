"""Writes what a viewer received to an mp4 file."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

RATE_HZ = 48_000


class Recorder:
    """Writes the received media to an mp4 file, timed by their arrival.

    The file begins with the first frame; sound before it is left out.
    """

    def __init__(self, path: Path) -> None:
        self._file = av.open(str(path), "w")
        self._video: Any = None
        self._sound: Any = None
        self._to_mono = av.AudioResampler(format="fltp", layout="mono", rate=RATE_HZ)
        self._began = 0.0
        self._samples: int | None = None
        self._last_ms = -1

    def frame(self, frame: av.VideoFrame) -> None:
        """Write one frame."""
        if self._video is None:
            self._begin(frame.width, frame.height)
        elapsed_ms = round((time.monotonic() - self._began) * 1000)
        self._last_ms = max(self._last_ms + 1, elapsed_ms)
        copy = frame.reformat(format="yuv420p")
        copy.pts, copy.time_base = self._last_ms, Fraction(1, 1000)
        self._file.mux(self._video.encode(copy))

    def sound(self, frame: av.AudioFrame) -> None:
        """Write one packet of sound."""
        if self._video is None:
            return
        if self._samples is None:
            self._samples = round((time.monotonic() - self._began) * RATE_HZ)
        for part in self._to_mono.resample(frame):
            part.pts, part.time_base = self._samples, Fraction(1, RATE_HZ)
            self._samples += part.samples
            self._file.mux(self._sound.encode(part))

    def close(self) -> None:
        """Finish the file; without a frame it is empty."""
        if self._video is not None:
            for stream in (self._video, self._sound):
                self._file.mux(stream.encode(None))
        self._file.close()

    def _begin(self, width: int, height: int) -> None:
        """Add both streams: the file's header is written with the first packet of either."""
        self._began = time.monotonic()
        options = {"preset": "veryfast", "tune": "zerolatency"}
        self._video = self._file.add_stream("libx264", rate=25, options=options)
        self._video.width, self._video.height = width, height
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = Fraction(1, 1000)
        self._sound = self._file.add_stream("aac", rate=RATE_HZ, layout="mono")
