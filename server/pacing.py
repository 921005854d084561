"""When may the next frame and its sound leave? Pure: time is an argument, in seconds.

One clock: a frame and its 40 ms of sound leave at the same time. A frame that is ready leaves at
once, but never sooner than one frame after the last. So a late frame moves the clock back, and its
sound waits for it; when every frame of the last second had time to spare, the clock runs up to
8 % fast until that is used up, and quiet clips are left out while more than 100 ms wait. Delay
is never added for good.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from server.clips import Clip
from server.intake import PACKET_SAMPLES, SOUND_RATE_HZ, Pcm48, conceal

PACKET_S = PACKET_SAMPLES / SOUND_RATE_HZ
GRACE_S = 0.015  # sound later than this is replaced, so that packets stay evenly spaced
SPARE_WINDOW = 25  # frames looked at before the clock runs fast
MARGIN_S = 0.002  # spare time that is left alone
GAIN = 2.0  # how much faster for a second to spare
FASTEST = 0.08
SKIP_S = 0.1  # a clip that would wait longer is left out if nothing is to be heard
QUIET = 328  # 1 % of full scale
REPEAT_S = 0.5  # a frame held for so long is sent again, so that key frames can be had
VIDEO_RATE_HZ = 90_000


class Pacer:
    """Gives each frame its time to leave."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._next = -np.inf
        self._spare: deque[float] = deque(maxlen=SPARE_WINDOW)

    def leave_at(self, ready: float) -> float:
        """Return when the frame that is ready at `ready` leaves; called once a frame, in order."""
        at = max(ready, self._next)
        self._spare.append(at - ready - MARGIN_S)
        if self._spare[-1] <= 0:
            self._spare.clear()
        full = len(self._spare) == SPARE_WINDOW
        faster = min(FASTEST, GAIN * min(self._spare)) if full else 0.0
        self._next = at + self.period * (1 - faster)
        return float(at)

    def wait(self, ready: float) -> float:
        """How long a frame that is ready at `ready` would wait."""
        return float(max(0.0, self._next - ready))

    def hold_until(self, at: float) -> None:
        """Let nothing leave before `at`."""
        self._next = max(self._next, at)

    def restart(self, now: float) -> None:
        """Forget the past: what waited was dropped, the next frame may leave at once."""
        self._next = now
        self._spare.clear()


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A frame with its time to leave and its place on the media line, at 48 kHz."""

    at: float
    media: int
    clip: Clip


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """20 ms of sound with its time to leave."""

    at: float
    pcm: Pcm48


class Playout:
    """The queue between the engine and the tracks: frames in one lane, their sound in the other.

    Bound: `limit_s` of media ahead, and as much that is overdue because nobody took it. Overflow
    ahead: all that waits is dropped and the newest frame is next. Overdue: the oldest goes.
    A frame whose successor is due as well is dropped. A repeated one is not sent again, unless the
    fresh one that it repeats was dropped: then it stands in, so that the screen keeps up with the
    engine however rarely that draws.
    """

    def __init__(self, fps: int, limit_s: float = 0.4) -> None:
        self.generation = 0
        self.dropped = 0  # clips left out, and frames whose time passed unseen
        self.replaced = 0  # packets of sound made up because the true ones were late
        self.began: float | None = None  # when the first frame was to leave: time stamp 0
        self._limit_s = limit_s
        self._pacer = Pacer(1 / fps)
        self._frames: deque[TimedFrame] = deque()
        self._sounds: deque[SoundPacket] = deque()
        self._queued = 0  # samples ever queued
        self._sent = 0  # samples whose time has come: sent, made up or expired
        self._shift = 0  # place in what is sent = place in what was queued + shift
        self._last_sound: SoundPacket | None = None
        self._last_frame: TimedFrame | None = None
        self._owed = False  # the newest fresh frame was dropped and nothing stood in for it yet
        self._shown_at = -np.inf
        self._video_pts = -1
        self._filling = 0

    def push(self, clip: Clip, now: float) -> None:
        """Queue a finished frame and its sound; the sound of an older generation dies here."""
        self._owed |= clip.fresh
        wait = self._pacer.wait(now)
        quiet = np.abs(clip.sound.astype(np.int32)).max(initial=0) < QUIET
        if clip.generation < self.generation or (wait > SKIP_S and quiet):
            self.dropped += 1
            return
        if wait > self._limit_s:
            self._drop_waiting(now)
            self._pacer.restart(now)
        at = self._pacer.leave_at(now)
        self.began = at if self.began is None else self.began
        if self._owed or clip.beep is not None:
            self._frames.append(TimedFrame(at, self._queued, clip))
            self._owed = False
        parts = range(0, len(clip.sound), PACKET_SAMPLES)
        step = self._pacer.period / len(parts)
        for i, begin in enumerate(parts):
            pcm = clip.sound[begin : begin + PACKET_SAMPLES]
            self._sounds.append(SoundPacket(at + i * step, pcm))
        self._queued += len(clip.sound)
        self._expire(now - self._limit_s)

    def interrupt(self, generation: int, now: float) -> None:
        """Drop what waits and let nothing of an older generation in again."""
        self.generation = generation
        self._drop_waiting(now)

    def frame_due(self) -> float | None:
        """When to call `take_frame` next; None when nothing is there to be sent."""
        if self._frames:
            return self._frames[0].at
        return None if self._last_frame is None else float(self._shown_at + REPEAT_S)

    def take_frame(self, now: float) -> tuple[Clip, int] | None:
        """Return the frame that is due and its time stamp at 90 kHz, or None: too early."""
        frame = None
        while self._frames and self._frames[0].at <= now:
            self.dropped += frame is not None
            frame = self._frames.popleft()
        place = self._sent
        if frame is not None:
            place = frame.media + self._shift
        elif now - self._shown_at >= REPEAT_S and self._last_frame and not self._frames:
            frame = self._last_frame
        if frame is None:
            return None
        pts = place * (VIDEO_RATE_HZ // 1000) // (SOUND_RATE_HZ // 1000)
        self._video_pts = max(pts, self._video_pts + 1)
        self._last_frame, self._shown_at = frame, now
        return frame.clip, self._video_pts

    def sound_due(self) -> float | None:
        """When to call `take_sound` next; None before the first frame."""
        if self._sounds:
            return self._sounds[0].at
        return None if self._last_sound is None else self._made_up_at(self._last_sound)

    def take_sound(self, now: float) -> tuple[Pcm48, int] | None:
        """Return the 20 ms that are due, `(960,)` at 48 kHz, and their time stamp, or None: too early."""
        if self._sounds:
            if self._sounds[0].at > now:
                return None
            packet = self._sounds.popleft()
            self._filling = 0
        elif self._last_sound is not None and now >= self._made_up_at(self._last_sound):
            packet = self._make_up(self._last_sound, now)
        else:
            return None
        self._last_sound = packet
        pts = self._sent
        self._sent += PACKET_SAMPLES
        return packet.pcm, pts

    def _made_up_at(self, last: SoundPacket) -> float:
        """When the packet after `last` is given up; the first of a run gets some grace."""
        return last.at + PACKET_S + (0.0 if self._filling else GRACE_S)

    def _make_up(self, last: SoundPacket, now: float) -> SoundPacket:
        """Stand in for a packet that is late: fade the last one away, then silence."""
        self.replaced += 1
        self._shift += PACKET_SAMPLES
        self._pacer.hold_until(now + PACKET_S)
        if self._filling == 0:
            fading = conceal(last.pcm, PACKET_SAMPLES)
        else:
            fading = np.asarray(last.pcm / 2, dtype=np.int16)
        self._filling += PACKET_SAMPLES
        return SoundPacket(now, fading)

    def _expire(self, before: float) -> None:
        """Drop what was due before that time and still was not taken."""
        while self._frames and self._frames[0].at < before:
            self._drop_frame()
        while self._sounds and self._sounds[0].at < before:
            self._sounds.popleft()
            self._sent += PACKET_SAMPLES  # its time is over: the time stamps step over it

    def _drop_frame(self) -> None:
        """Drop the oldest frame; the last of them is owed to the viewer."""
        self._frames.popleft()
        self.dropped += 1
        self._owed |= not self._frames

    def _drop_waiting(self, now: float) -> None:
        self._expire(now)
        while self._frames:
            self._drop_frame()
        self._shift -= PACKET_SAMPLES * len(self._sounds)
        self._sounds.clear()
