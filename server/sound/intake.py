"""From decoded microphone packets to one unbroken line of samples. Pure: time is an argument."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from engine.types import Pcm
from server.sound.arrivals import SOUND_RATE_HZ as SOUND_RATE_HZ
from server.sound.arrivals import Arrivals
from server.sound.stretch import Stretcher

Pcm48 = NDArray[np.int16]  # (N,) mono at 48 kHz

PACKET_SAMPLES = 960  # 20 ms
FADE_SAMPLES = 2880  # a concealed gap fades to silence within 60 ms
MISSED = 3840  # 80 ms: so much is missing before silence takes over, in real time
EARLY = 1440  # 30 ms: without a delay a packet may be so much ahead of the clock
TOO_SOON = 240  # 5 ms: with a delay, a packet that waits so much less is played longer
TOO_LONG = 480  # 10 ms: one that waits so much more is played shorter
OFF_RASTER = 1200  # 25 ms: without a delay, either
ABSENT_AFTER_S = 1.0  # a microphone back after so long starts at the present
MAX_LATE_RUN = 10  # packets late in a row (200 ms) before the time line is moved to them
MAX_GAP = SOUND_RATE_HZ // 2  # a longer jump of the time stamps is a new start, not a loss


def conceal(tail: Pcm48, missing: int, faded: int = 0) -> Pcm48:
    """Fill a gap after `tail`: play it back and forth, fading to silence.

    Shapes:
        tail `(K,)`, the last samples heard; returns `(missing,)`. `faded` samples of the same gap
        were filled before.
    """
    if missing <= 0 or len(tail) == 0:
        return np.zeros(max(0, missing), dtype=np.int16)
    loop = np.concatenate([tail[::-1], tail]).astype(np.float32)
    at = np.arange(faded, faded + missing)
    gain = np.clip(1 - at / FADE_SAMPLES, 0, 1)
    return np.asarray(loop[at % len(loop)] * gain, dtype=np.int16)


class Intake:
    """The time line of one microphone, or of its absence.

    Law: the samples returned so far follow the clock `now * 48000`: never more than `EARLY` ahead of
    it, and not much more than `MISSED` behind while it is ticked. At most `MAX_GAP` samples wait; when
    more come, those that wait are dropped and the newest is next. A packet has its place on the line,
    `target_delay_s` after the earliest it could have come. A lost packet is concealed at its place,
    what comes too late for it is dropped, silence flows while no microphone is heard.

    Packets that come evenly need no delay and are returned at once. The delay follows their lateness,
    and a sender whose clock is fast or slow is kept up with, by playing the sound a little shorter
    or longer.
    """

    def __init__(self, now: float) -> None:
        self.fed = 0  # samples returned so far
        self.concealed = 0  # samples made up in the place of missing ones
        self.late = 0  # samples dropped because their time was over
        self.arrived: float | None = None  # when the packet came whose sound was returned last
        self.arrivals = Arrivals()
        self._began = now
        self._ready: Pcm48 = np.zeros(0, dtype=np.int16)  # the line from `fed` on
        self._marks: deque[tuple[int, float]] = deque()  # (end of a packet, when it came)
        self._offset: int | None = None  # place on the line = pts + offset
        self._heard_at = -np.inf
        self._filling = 0  # samples filled since the last packet
        self._late_run = 0
        self._tail: Pcm48 = np.zeros(0, dtype=np.int16)
        self._stretcher = Stretcher()

    @property
    def discarded(self) -> int:
        """Samples that were pushed and are not in what was returned."""
        return self.late + self._stretcher.shortened

    @property
    def stretched(self) -> int:
        """Samples that were left out or played twice to change the delay."""
        return self._stretcher.shortened + self._stretcher.lengthened

    @property
    def lost(self) -> int:
        """Packets that never came."""
        return self.arrivals.lost

    @property
    def target_delay_s(self) -> float:
        """How long a packet that came as early as one can waits."""
        return self.arrivals.delay_s

    def push(self, pts: int, pcm: Pcm48, now: float, arrived: float | None = None) -> Pcm48:
        """Take a decoded packet `(N,)` with time stamp `pts`; return the samples that are due, `(M,)`.

        Packets come in order. `arrived` is when this one came in, if that was before `now`.
        """
        self._wake(now)
        came = now if arrived is None else arrived
        follows = self._offset is not None and came - self._heard_at <= ABSENT_AFTER_S
        gap = self._locate(pts, len(pcm), now) if follows else None
        if gap is None:
            gap = self._anchor(pts, len(pcm), came)
        self.arrivals.add(pts, came)
        gap += self._give_way(pts, len(pcm), -gap)
        self._heard_at = max(came, self._heard_at)
        fresh = pcm[min(-gap, len(pcm)) :] if gap < 0 else pcm
        self.late += len(pcm) - len(fresh)
        if len(fresh) == 0:
            self._late_run += 1
            self.arrivals.late += 1
            return self._due(now)
        self._late_run = 0
        filled = conceal(self._tail, gap, self._filling)
        if follows:
            self.concealed += self._filling + len(filled)
        self._tail, self._filling = pcm[-PACKET_SAMPLES:], 0
        fresh = self._stretch(fresh, self._excess(pts, len(pcm)))
        self._ready = np.concatenate([self._ready, filled, fresh])
        self._marks.append((self._end, came))
        return self._due(now)

    def tick(self, now: float) -> Pcm48:
        """Return the samples that are due at `now`, `(N,)`, silence among them; often none."""
        self._wake(now)
        missing = self._clock(now) - self._end
        if self._offset is None or self._filling or missing > MISSED:
            count = max(0, missing // PACKET_SAMPLES * PACKET_SAMPLES)
            filled = conceal(self._tail, count, self._filling)
            self._filling += count
            self._ready = np.concatenate([self._ready, filled])
        return self._due(now)

    @property
    def _end(self) -> int:
        """The place after the last sample that is there."""
        return self.fed + len(self._ready)

    def _clock(self, at: float) -> int:
        """The place on the line that is due at that time."""
        return math.floor((at - self._began) * SOUND_RATE_HZ + 1e-6)

    def _early(self, pts: int) -> int:
        """The place of the packet's last sample if the packet were as early as one can be."""
        return self._clock(self.arrivals.earliest(pts))

    def _wake(self, now: float) -> None:
        """After a sleep of the process go on at the present; what was missed is not made up for."""
        behind = self._clock(now) - self.fed
        if behind > MAX_GAP:
            self._began += (behind - PACKET_SAMPLES) / SOUND_RATE_HZ
            self._ready, self._offset = self._ready[:0], None
            self._marks.clear()

    def _due(self, now: float) -> Pcm48:
        """Return what is due; without a delay that is all that is there, within reason."""
        early = 0 if self.target_delay_s else EARLY
        count = max(0, self._clock(now) + early - self.fed)
        due, self._ready = self._ready[:count], self._ready[count:]
        if len(due):
            self.fed += len(due)
            self.arrived = self._marks[0][1] if self._marks else None
        while self._marks and self._marks[0][0] <= self.fed:
            self._marks.popleft()
        return due

    def _locate(self, pts: int, length: int, now: float) -> int | None:
        """Return how many samples are missing before a packet; negative: they are there already.

        None: its time stamp makes no sense, or the line has left it behind or is full.
        """
        assert self._offset is not None
        gap = pts + self._offset - self._end
        if gap + length <= 0 and self._late_run >= MAX_LATE_RUN - 1:
            self.arrivals.forget()
            return None
        if self._end + gap + length - self._clock(now) > MAX_GAP >= gap:
            self.late += len(self._ready)
            self._ready = self._ready[:0]
            self._marks.clear()
            return None
        return gap if abs(gap) <= MAX_GAP else None

    def _anchor(self, pts: int, length: int, came: float) -> int:
        """Give a packet its place by when it came; return how many samples are missing before it."""
        self.arrivals.restart()
        begin = self._clock(came + self.target_delay_s) - length
        place = max(self._end, begin // PACKET_SAMPLES * PACKET_SAMPLES)
        self._offset = place - pts
        return place - self._end

    def _give_way(self, pts: int, length: int, late: int) -> int:
        """Move the line for a packet that is `late`, as far as the delay is to grow; return how far.

        What was filled in for the packet has then been the delay.
        """
        assert self._offset is not None
        most = int(self.target_delay_s * SOUND_RATE_HZ) or EARLY
        moved = min(late, self._early(pts) + most - (pts + length + self._offset))
        if moved <= max(0, late - length):  # nothing of it would be heard
            return 0
        self._offset += moved
        return moved

    def _excess(self, pts: int, length: int) -> int:
        """How many samples more than it should the packet waits, 0 if that is near enough."""
        place = pts + (self._offset or 0)
        excess = place + length - self._early(pts) - int(self.target_delay_s * SOUND_RATE_HZ)
        if self.target_delay_s:
            return excess if excess < -TOO_SOON or excess > TOO_LONG else 0
        raster = min(length, PACKET_SAMPLES)  # a frame is complete with a packet, not within one
        if place % raster == 0 and abs(excess) < OFF_RASTER:
            return 0
        return place - round((place - excess) / raster) * raster

    def _stretch(self, pcm: Pcm48, excess: int) -> Pcm48:
        assert self._offset is not None
        out = self._stretcher.adjust(pcm, excess, at_once=excess < 0 and self.target_delay_s > 0)
        self._offset += len(out) - len(pcm)
        return out


class Downsampler:
    """48 kHz int16 to 16 kHz float32, streaming; 1 ms late, three samples in for one out.

    Law: splitting the input differently never changes the output.
    """

    _HELD_BACK = 48  # samples the filter keeps for itself

    def __init__(self) -> None:
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SOUND_RATE_HZ // 3)
        self._pts = 0
        self.push(np.zeros(self._HELD_BACK, dtype=np.int16))

    def push(self, pcm: Pcm48) -> Pcm:
        """Take `(N,)` and return `(N // 3,)` in [-1, 1], give or take what a cut leaves over."""
        if pcm.ndim != 1 or pcm.dtype != np.int16:
            raise ValueError(
                f"push() wants int16 of shape (N,), got {pcm.dtype} of shape {pcm.shape}"
            )
        if len(pcm) == 0:
            return np.zeros(0, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
        frame.sample_rate = SOUND_RATE_HZ
        frame.time_base = Fraction(1, SOUND_RATE_HZ)
        frame.pts = self._pts
        self._pts += len(pcm)
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def to_mono(frame: av.AudioFrame) -> Pcm48:
    """Return the sound of a decoded packed s16 frame as mono `(N,)` int16, channels averaged."""
    data = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if channels == 1:
        return np.ascontiguousarray(data.reshape(-1))
    return np.asarray(data.reshape(-1, channels).mean(axis=1), dtype=np.int16)
