"""When may sound and pictures leave? Pure: time is an argument, in seconds.

One line of sound, one clock: sample `place` leaves at `clock.leave_at(place)`, and a picture with
the first sample of its 40 ms. **Sound never waits for a late picture**: the delay of the line is
what pictures needed in the last second, no more than `MAX_EXTRA_S` above what the engine's look-ahead
takes, and it changes where nobody hears it: by whole packets in silence, by at most 8 % of the
speed in speech. A picture that comes too late for its sound is shown up to 70 ms late, else dropped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from server.live.clips import Picture
from server.live.clock import PACKET_S, Clock
from server.sound.intake import PACKET_SAMPLES, SOUND_RATE_HZ, Pcm48, conceal

GRACE_S = 0.015  # sound later than this is replaced, so that packets stay evenly spaced
LATE_S = 0.07  # a picture this late is still shown; the line moves on meanwhile: below 80 ms in all
STALE_S = 0.4  # after so long without any, a later one is
GAIN = 2.0  # how much faster for a second to spare
SLEWING = 0.08
QUIET = 328  # 1 % of full scale
REPEAT_S = 0.5  # a picture held for so long is sent again, so that key frames can be had
LIMIT_S = 0.4  # of overdue sound that nobody took; more is dropped
VIDEO_RATE_HZ = 90_000


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """20 ms of sound; `place` is that of its first sample, None if it was made up."""

    pcm: Pcm48  # (960,)
    place: int | None


class Playout:
    """The line of sound on its way out, and the pictures that wait for their place on it."""

    def __init__(self, fps: int, lookahead_frames: int) -> None:
        self.clock = Clock((1 + lookahead_frames) / fps)
        self.dropped = 0  # pictures that were not shown
        self.replaced = 0  # packets of sound made up because the true ones were late
        self.began: float | None = None  # when time stamp 0 was to leave
        self._pictures: deque[Picture] = deque()
        self._sounds: deque[SoundPacket] = deque()
        self._rest: Pcm48 = np.zeros(0, dtype=np.int16)  # less than a packet
        self._fed = 0  # samples fed
        self._cut = 0  # pictures of places before this one are stale
        self._sent = 0  # samples of the line of time stamps
        self._shift = 0  # time stamp = place + shift
        self._tail: Pcm48 = np.zeros(PACKET_SAMPLES, dtype=np.int16)  # the last packet sent
        self._filling = 0  # samples made up in a row
        self._last: Picture | None = None
        self._owed = False  # the newest fresh picture was dropped and nothing stood in for it yet
        self._shown_at = -np.inf
        self._video_pts = -1

    def hear(self, pcm: Pcm48, now: float) -> None:
        """Queue the next samples of the line (N,)."""
        self.clock.fed(self._fed, now)
        self._rest = np.concatenate([self._rest, pcm])
        begin = self._fed - (len(self._rest) - len(pcm))
        self._fed += len(pcm)
        count = len(self._rest) // PACKET_SAMPLES
        for i in range(count):
            cut = self._rest[i * PACKET_SAMPLES : (i + 1) * PACKET_SAMPLES]
            self._sounds.append(SoundPacket(cut, begin + i * PACKET_SAMPLES))
        self._rest = self._rest[count * PACKET_SAMPLES :]

    def show(self, picture: Picture, now: float) -> None:
        """Queue a picture; one whose sound was cut off dies here."""
        self._owed |= picture.fresh
        if picture.place is not None:
            if picture.place < self._cut:
                self.dropped += picture.fresh
                return
            self.clock.ready(picture.place, now)
        if self._owed or picture.beep is not None:
            self._pictures.append(picture)
            self._owed = False

    def restart(self) -> None:
        """Nothing was fed for a while: what is fed next sets the clock anew, and what waited goes first."""
        self.clock.restart()
        self.began = None

    @property
    def next_place(self) -> int:
        """The place of the next sound that leaves."""
        place = self._sounds[0].place if self._sounds else None
        return self._fed - len(self._rest) if place is None else place

    def leap(self, before: int, most: int, now: float) -> int:
        """Leave out silence that waits to leave before the speech at place `before`.

        No more than `most` samples, which are to be fed at once then: the pictures of the speech
        need them. Returns how many it were, whole packets.
        """
        if self.clock.base is None:
            return 0
        most = min(most, round(self.clock.spare(before, now) * SOUND_RATE_HZ))
        left_out = 0
        while left_out + PACKET_SAMPLES <= most and self._sounds:
            packet = self._sounds[0]
            assert packet.place is not None
            if packet.place + PACKET_SAMPLES > before or not _is_quiet(packet.pcm):
                break
            self._sounds.popleft()
            left_out += PACKET_SAMPLES
        if left_out:
            self._cut = max(self._cut, self.next_place)
            self._shift -= left_out
            self.clock.leap(left_out / SOUND_RATE_HZ)
        return left_out

    def interrupt(self) -> None:
        """Fade out what waits; nothing that was heard or seen to come of it is let in again."""
        self._cut = self._fed
        while self._pictures:
            self._drop_picture()
        faded = [
            SoundPacket(_fade_out(packet.pcm, first=i == 0), packet.place)
            for i, packet in enumerate(self._sounds)
        ]
        self._sounds = deque(faded)
        self._rest = np.zeros_like(self._rest)

    def picture_due(self) -> float | None:
        """When to call `take_picture` next; None when nothing is there to be sent."""
        if self._pictures:
            return self._leave_at(self._pictures[0])
        return None if self._last is None else float(self._shown_at + REPEAT_S)

    def take_picture(self, now: float) -> tuple[Picture, int] | None:
        """Return the picture that is due and its time stamp at 90 kHz, or None: too early."""
        due: Picture | None = None
        while self._pictures and self._leave_at(self._pictures[0]) <= now:
            self.dropped += due is not None
            due = self._pictures.popleft()
        if due is not None and self._too_late(due, now):
            self.dropped += 1
            self._owed |= not self._pictures
            due = None
        if due is None and self._last and now - self._shown_at >= REPEAT_S and not self._pictures:
            due = self._last
        if due is None:
            return None
        pts = self._stamp(now) * (VIDEO_RATE_HZ // 1000) // (SOUND_RATE_HZ // 1000)
        self._video_pts = max(pts, self._video_pts + 1)
        self._last, self._shown_at = due, now
        return due, self._video_pts

    def sound_due(self) -> float | None:
        """When to call `take_sound` next; None before anything was fed."""
        if self.clock.base is None:
            return None
        if self._sounds:
            return self._due(self._sounds[0])
        return self._made_up_at()

    def take_sound(self, now: float) -> tuple[SoundPacket, int] | None:
        """Return the 20 ms that are due, at 48 kHz, and their time stamp, or None: too early."""
        due = self.sound_due()
        if due is None or due > now:
            return None
        self._expire(now - LIMIT_S)
        gap = self.clock.gap()
        if self._sounds:
            packet = self._next(gap)
        else:
            packet = self._make_up()
        if self.began is None:
            self.began = now - self._sent / SOUND_RATE_HZ
        self._tail = packet.pcm
        pts = self._sent
        self._sent += PACKET_SAMPLES
        return packet, pts

    def _next(self, gap: float) -> SoundPacket:
        """The next packet, after moving the clock towards what pictures need."""
        self._filling = 0
        quiet = _is_quiet(self._sounds[0].pcm)
        if gap >= PACKET_S and quiet and _is_quiet(self._tail):
            self.clock.shift(PACKET_S)
            self._shift += PACKET_SAMPLES
            return SoundPacket(np.zeros(PACKET_SAMPLES, np.int16), None)
        while gap <= -PACKET_S and len(self._sounds) > 1 and _is_quiet(self._sounds[0].pcm):
            self._sounds.popleft()
            self._shift -= PACKET_SAMPLES
            self.clock.shift(-PACKET_S)
            gap += PACKET_S
        most = SLEWING * PACKET_S
        self.clock.shift(float(np.clip(gap if gap > 0 else GAIN * PACKET_S * gap, -most, most)))
        return self._sounds.popleft()

    def _due(self, packet: SoundPacket) -> float:
        assert packet.place is not None
        due = self.clock.leave_at(packet.place)
        assert due is not None
        return due

    def _made_up_at(self) -> float:
        """When a packet that did not come is given up; the first of a run gets some grace."""
        due = self.clock.leave_at(self._fed - len(self._rest))
        assert due is not None
        return due + (0.0 if self._filling else GRACE_S)

    def _make_up(self) -> SoundPacket:
        """Stand in for a packet that is late: fade the last one away, then silence."""
        self.replaced += 1
        fading = conceal(self._tail, PACKET_SAMPLES)
        if self._filling:
            fading = np.asarray(self._tail / 2, dtype=np.int16)
        self._filling += PACKET_SAMPLES
        self._shift += PACKET_SAMPLES
        self.clock.shift(PACKET_S)
        return SoundPacket(fading, None)

    def _expire(self, before: float) -> None:
        """Drop the sound that was due before that time: the process slept."""
        while self._sounds and self._due(self._sounds[0]) < before:
            self._sounds.popleft()
            self._sent += PACKET_SAMPLES  # its time is over: the time stamps step over it

    def _leave_at(self, picture: Picture) -> float:
        at = None if picture.place is None else self.clock.leave_at(picture.place)
        return -np.inf if at is None else at

    def _too_late(self, picture: Picture, now: float) -> bool:
        if picture.place is None or now - self._shown_at > STALE_S:
            return False
        return now - self._leave_at(picture) > LATE_S

    def _stamp(self, now: float) -> int:
        """The time stamp, at 48 kHz, of what leaves now: a late picture does not drag its sound along."""
        if self.clock.base is None:
            return self._sent
        return round((now - self.clock.base) * SOUND_RATE_HZ) + self._shift

    def _drop_picture(self) -> None:
        """Drop the oldest picture; the last of them is owed to the viewer."""
        self._pictures.popleft()
        self.dropped += 1
        self._owed |= not self._pictures


def _is_quiet(pcm: Pcm48) -> bool:
    return bool(np.abs(pcm.astype(np.int32)).max(initial=0) < QUIET)


def _fade_out(pcm: Pcm48, *, first: bool) -> Pcm48:
    """The packet (N,) faded to nothing if it is the first that is cut off, else silence."""
    if not first:
        return np.zeros_like(pcm)
    return np.asarray(pcm * np.linspace(1, 0, len(pcm)), dtype=np.int16)
