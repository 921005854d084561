"""Takes pictures and sound from the playout when they leave and hands them to every outlet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from fractions import Fraction

from server.live import frame_code
from server.live.clips import Picture, Spoken
from server.live.outlet import Heard, Outlet, Shown
from server.live.pacing import VIDEO_RATE_HZ, Playout, SoundPacket
from server.live.yuv import Yuv, as_frame

VIDEO_TIME_BASE = Fraction(1, VIDEO_RATE_HZ)
SOUND_RATE_HZ = 48_000
FRAME = SOUND_RATE_HZ // 25  # samples


class Broadcast:
    """One session's way out, from one render to any number of outlets.

    Args:
        shown: hears of every picture that left, with the monotonic time.
        heard: hears of the place on the line before which all sound has left.
        spoken: says which utterances are between two places on the line.
        coded: test mode: draws the frame code strip, and hears of the number of each frame and
            whether somebody speaks in it.
    """

    def __init__(
        self,
        playout: Playout,
        *,
        shown: Callable[[Picture, float], None],
        heard: Callable[[int], None],
        spoken: Callable[[int, int], tuple[Spoken, ...]] = lambda begin, end: (),
        coded: Callable[[int, Picture, bool], None] | None = None,
    ) -> None:
        self.outlets: list[Outlet] = []
        self._playout = playout
        self._shown, self._heard, self._spoken = shown, heard, spoken
        self._coded = coded
        self._counter = 0
        self._last: Picture | None = None
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look again at the playout: something came in."""
        self._changed.set()

    async def run(self) -> None:
        """Hand on what is due, for ever."""
        while True:
            self._changed.clear()
            now = time.monotonic()
            while (sound := self._playout.take_sound(now)) is not None:
                self._hear(*sound)
            if (taken := self._playout.take_picture(now)) is not None:
                self._show(*taken, now)
            await self._sleep()

    def _hear(self, packet: SoundPacket, pts: int) -> None:
        spoken: tuple[Spoken, ...] = ()
        end = 0 if packet.place is None else packet.place + len(packet.pcm)
        if packet.place is not None:
            spoken = self._spoken(packet.place, end)
        heard = Heard(packet.pcm, pts, self._wall(pts / SOUND_RATE_HZ), spoken)
        for outlet in self.outlets:
            outlet.hear(heard)
        if packet.place is not None:
            self._heard(end)

    def _show(self, picture: Picture, pts: int, now: float) -> None:
        repeated, self._last = picture is self._last, picture
        yuv = picture.yuv if self._coded is None else self._code(picture, repeated)
        frame = as_frame(yuv)
        frame.pts, frame.time_base = pts, VIDEO_TIME_BASE
        shown = Shown(frame, yuv, picture, self._wall(pts / VIDEO_RATE_HZ))
        for outlet in self.outlets:
            outlet.show(shown)
        if not repeated:
            self._shown(picture, now)

    def _wall(self, seconds: float) -> float | None:
        """A place on the line of time stamps as Unix time."""
        if self._playout.began is None:
            return None
        return time.time() - time.monotonic() + self._playout.began + seconds

    def _code(self, picture: Picture, repeated: bool) -> Yuv:
        """A copy of the picture with the frame code on it."""
        assert self._coded is not None
        yuv, beep = picture.yuv.copy(), None if repeated else picture.beep
        at = picture.place
        self._coded(self._counter, picture, at is not None and bool(self._spoken(at, at + FRAME)))
        flags, number = (frame_code.FLAG_BEEP, beep.id) if beep else (0, 0)
        stamp = int(time.time() * 1000)
        frame_code.draw(yuv, frame_code.FrameCode(self._counter, stamp, flags, number))
        self._counter += 1
        return yuv

    async def _sleep(self) -> None:
        """Sleep until something is due, or `wake`."""
        dues = [
            d for d in (self._playout.sound_due(), self._playout.picture_due()) if d is not None
        ]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        try:
            async with asyncio.timeout(wait):
                await self._changed.wait()
        except TimeoutError:
            pass
