"""The two tracks a viewer receives; both wait for what `Playout` says is due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from engine.types import RgbImage
from server import frame_code
from server.beeps import Beep
from server.clips import Clip
from server.intake import SOUND_RATE_HZ
from server.pacing import VIDEO_RATE_HZ, Playout

VIDEO_TIME_BASE = Fraction(1, VIDEO_RATE_HZ)
SOUND_TIME_BASE = Fraction(1, SOUND_RATE_HZ)


class PacedTrack(MediaStreamTrack):
    """Waits for the next due piece; `wake` makes it look again."""

    def __init__(self, playout: Playout) -> None:
        super().__init__()
        self.playout = playout
        self.media_time: float | None = None  # Unix time of the last piece on the media line
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look again at the queue."""
        self._changed.set()

    def stop(self) -> None:
        """End the track; a waiting `recv` raises `MediaStreamError`."""
        super().stop()
        self._changed.set()

    async def _sleep_until(self, due: float | None) -> None:
        """Sleep until `due` (monotonic), `wake` or `stop`."""
        wait = None if due is None else max(0.0, due - time.monotonic())
        try:
            async with asyncio.timeout(wait):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _note(self, pts: int, time_base: Fraction) -> None:
        """Note the place of a piece on the line that both tracks share, as a wall time."""
        if self.playout.began is not None:
            to_wall = time.time() - time.monotonic()
            self.media_time = to_wall + self.playout.began + float(pts * time_base)

    def _check_live(self) -> None:
        if self.readyState != "live":
            raise MediaStreamError
        self._changed.clear()


class AvatarVideoTrack(PacedTrack):
    """The face. With `code`, every frame carries the frame code strip."""

    kind = "video"

    def __init__(self, playout: Playout, sent: Callable[[Clip, float], None], code: bool) -> None:
        super().__init__(playout)
        self._sent = sent
        self._code = code
        self._counter = 0
        self._last: Clip | None = None

    async def recv(self) -> av.VideoFrame:
        """Return the next frame when it is due."""
        while True:
            self._check_live()
            now = time.monotonic()
            taken = self.playout.take_frame(now)
            if taken is not None:
                break
            await self._sleep_until(self.playout.frame_due())
        clip, pts = taken
        self._note(pts, VIDEO_TIME_BASE)
        repeated, self._last = clip is self._last, clip
        rgb = self._prepare(clip.rgb, None if repeated else clip.beep)
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, frame.time_base = pts, VIDEO_TIME_BASE
        if not repeated:
            self._sent(clip, now)
        return frame

    def _prepare(self, rgb: RgbImage, beep: Beep | None) -> RgbImage:
        """Cut to even sides, as chroma needs; in test mode draw the code on a copy."""
        height, width, _ = rgb.shape
        rgb = rgb[: height // 2 * 2, : width // 2 * 2]
        if not self._code:
            return np.ascontiguousarray(rgb)
        rgb = rgb.copy()
        flags, number = (frame_code.FLAG_BEEP, beep.id) if beep else (0, 0)
        stamp = int(time.time() * 1000)
        frame_code.draw(rgb, frame_code.FrameCode(self._counter, stamp, flags, number))
        self._counter += 1
        return rgb


class AvatarAudioTrack(PacedTrack):
    """The sound that belongs to the face, 20 ms a packet."""

    kind = "audio"

    async def recv(self) -> av.AudioFrame:
        """Return the next packet of sound when it is due."""
        while True:
            self._check_live()
            taken = self.playout.take_sound(time.monotonic())
            if taken is not None:
                break
            await self._sleep_until(self.playout.sound_due())
        pcm, pts = taken
        self._note(pts, SOUND_TIME_BASE)
        frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
        frame.sample_rate = SOUND_RATE_HZ
        frame.pts, frame.time_base = pts, SOUND_TIME_BASE
        return frame
