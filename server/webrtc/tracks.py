"""The two tracks a viewer receives: what its outlet is given, as it comes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.live.outlet import Heard, Outlet, Shown
from server.live.yuv import as_frame
from server.sound.intake import SOUND_RATE_HZ

SOUND_TIME_BASE = Fraction(1, SOUND_RATE_HZ)


class AvatarTrack(MediaStreamTrack):
    """A track of an outlet; `media_time` is the Unix time of the last piece on the line both share."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self.outlet = outlet
        self.media_time: float | None = None

    def stop(self) -> None:
        """End the track, and what its outlet gives; a waiting `recv` raises `MediaStreamError`."""
        super().stop()
        self.outlet.close()

    def check_live(self) -> None:
        """Raise `MediaStreamError` if the track has ended."""
        if self.readyState != "live":
            raise MediaStreamError


class AvatarVideoTrack(AvatarTrack):
    """The face."""

    kind = "video"

    def __init__(self, outlet: Outlet, sent: Callable[[Shown], None] = lambda shown: None) -> None:
        super().__init__(outlet)
        self._sent = sent

    async def recv(self) -> av.VideoFrame:
        """Return the next frame when it is there."""
        self.check_live()
        try:
            shown = await self.outlet.picture()
        except EOFError:
            raise MediaStreamError from None
        self.media_time = shown.wall
        self._sent(shown)
        frame = as_frame(
            shown.yuv
        )  # the library notes in it that its encoder is to make a key frame
        frame.pts, frame.time_base = shown.frame.pts, shown.frame.time_base
        return frame


class AvatarAudioTrack(AvatarTrack):
    """The sound that belongs to the face, 20 ms a packet."""

    kind = "audio"

    async def recv(self) -> av.AudioFrame:
        """Return the next packet of sound when it is there."""
        self.check_live()
        try:
            heard: Heard = await self.outlet.sound()
        except EOFError:
            raise MediaStreamError from None
        self.media_time = heard.wall
        frame = av.AudioFrame.from_ndarray(heard.pcm[None, :], format="s16", layout="mono")
        frame.sample_rate = SOUND_RATE_HZ
        frame.pts, frame.time_base = heard.pts, SOUND_TIME_BASE
        return frame
