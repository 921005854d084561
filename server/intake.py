"""From decoded microphone packets to one unbroken line of samples. Pure: time is an argument."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from engine.types import Pcm

Pcm48 = NDArray[np.int16]  # (N,) mono at 48 kHz

SOUND_RATE_HZ = 48_000
PACKET_SAMPLES = 960  # 20 ms
FADE_SAMPLES = 2880  # a concealed gap fades to silence within 60 ms
SILENT_AFTER_S = 0.080  # no packet for so long: silence takes over, in real time
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

    Law: the samples returned so far follow the clock. A lost packet is concealed at its place, a
    late one is dropped, silence flows in real time while no microphone is heard.
    """

    def __init__(self, now: float) -> None:
        self.fed = 0  # samples returned so far
        self.concealed = 0
        self.late = 0
        self._fed_until = now  # the wall time that `fed` stands for
        self._offset: int | None = None  # place on the line = pts + offset
        self._heard_at = -np.inf
        self._filling = 0  # samples filled since the last packet
        self._late_run = 0
        self._tail: Pcm48 = np.zeros(0, dtype=np.int16)

    def push(self, pts: int, pcm: Pcm48, now: float) -> Pcm48:
        """Take one decoded packet `(N,)` with time stamp `pts`; return the samples it adds, `(M,)`."""
        if self._offset is None or now - self._heard_at > ABSENT_AFTER_S:
            self._offset = self.fed - pts
        gap = pts + self._offset - self.fed
        if gap > MAX_GAP or (gap > 0 and self._filling):
            self._offset, gap = self.fed - pts, 0
        if gap < 0:
            self._late_run += 1
            if self._late_run >= MAX_LATE_RUN or -gap > MAX_GAP:
                self._offset, gap = self.fed - pts, 0
        self._heard_at = now
        fresh = pcm[min(-gap, len(pcm)) :] if gap < 0 else pcm
        self.late += len(pcm) - len(fresh)
        if len(fresh) == 0:
            return fresh
        self._late_run = 0
        if gap > 0:
            self.concealed += gap
            fresh = np.concatenate([conceal(self._tail, gap), fresh])
        self._tail = pcm[-PACKET_SAMPLES:]
        self._filling = 0
        self._fed_until = now
        return self._feed(fresh)

    def tick(self, now: float) -> Pcm48:
        """Return the silence that is due at `now`, `(N * 960,)`: whole packets, often none."""
        waited = now - self._fed_until
        if self.fed and not self._filling and waited < SILENT_AFTER_S:
            return np.zeros(0, dtype=np.int16)
        count = int(waited * SOUND_RATE_HZ + 1e-6) // PACKET_SAMPLES * PACKET_SAMPLES
        if count > MAX_GAP:  # the process slept: what was missed is not made up for
            self._fed_until, count = now, PACKET_SAMPLES
        else:
            self._fed_until += count / SOUND_RATE_HZ
        filled = conceal(self._tail, count, self._filling)
        self._filling += count
        return self._feed(filled)

    def _feed(self, pcm: Pcm48) -> Pcm48:
        self.fed += len(pcm)
        return pcm


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
