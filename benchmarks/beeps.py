"""The arithmetic of the end-to-end benchmark: beeps, clocks, legs, percentiles. Pure.

All times are wall clock milliseconds unless the name says otherwise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.voice import wav

BEEP_S = 0.03
BEEP_HZ = 2000
HEALTHY_CLOCK = 0.995  # of real time; below it the browser's sound devices are starved
MOST_OTHERS_CORES = 0.3  # what other programs may take of the machine meanwhile
SLOWEST_MS = 3000.0  # a beep that took longer counts as lost
SMOOTHING_MS = 3000.0  # half the span over which a sound clock is fitted to the wall clock
FLAG_BEEP = 1


def write_beeps(path: Path, seconds: float, *, rate_hz: int = 48_000, seed: int = 0) -> None:
    """Write a mono wav of 30 ms bursts at random distances of 1.0 to 1.2 s.

    The distances are random so that the beeps do not lock to the frame clock.
    """
    pcm = np.zeros(int(seconds * rate_hz))
    t = np.arange(int(BEEP_S * rate_hz)) / rate_hz
    burst = 0.5 * np.sin(2 * np.pi * BEEP_HZ * t)
    rng = np.random.default_rng(seed)
    at = 0.5
    while at + 1.0 < seconds:
        begin = int(at * rate_hz)
        pcm[begin : begin + len(burst)] = burst
        at += rng.uniform(1.0, 1.2)
    write_wav(path, pcm, rate_hz)


def write_wav(path: Path, pcm: NDArray[Any], rate_hz: int) -> None:
    """Write mono sound (N,) in [-1, 1] as a 16-bit wav file; what is louder is clipped."""
    path.write_bytes(wav((np.clip(pcm, -1, 1) * 32767).astype(np.int16), rate_hz))


class SoundClock:
    """Tells when a sample of a recorded track passed, from the arrival times of its chunks.

    Chunks come late, never early, so the earliest arrival (relative to the sample count) within
    3 s on either side is taken as the truth. `device=True` is for a microphone: a chunk can only
    come once its last sample was captured, so its first sample is older by the chunk's length.

    Args:
        chunks: `(arrival ms, samples before it, its samples)` in order.
        rate_hz: samples a second.
    """

    def __init__(
        self, chunks: Sequence[tuple[float, int, int]], rate_hz: float, *, device: bool
    ) -> None:
        if not chunks:
            raise ValueError("a sound clock needs at least one chunk of sound")
        self._rate_hz = rate_hz
        begins = np.array([begin for _, begin, _ in chunks], dtype=float)
        sizes = np.array([size for _, _, size in chunks], dtype=float)
        self._arrivals = np.array([arrival for arrival, _, _ in chunks])
        self._begins = begins
        edge = begins + sizes if device else begins
        self._offsets = self._arrivals - edge * 1000 / rate_hz

    def wall_ms(self, sample: int) -> float:
        """When this sample was captured, or handed to the loudspeaker."""
        chunk = max(0, bisect_left(self._begins, sample + 1) - 1)
        near = np.abs(self._arrivals - self._arrivals[chunk]) <= SMOOTHING_MS
        return float(sample * 1000 / self._rate_hz + self._offsets[near].min())


@dataclass(frozen=True, slots=True)
class Shown:
    """A frame that the page showed."""

    shown: float  # when it should light up
    received: float | None  # its last packet; None where the browser does not say
    presented: int  # frames shown so far, this one included
    stamp: float | None  # when the server handed it to the encoder; None: code not readable
    counter: int | None
    beep: int  # id of the beep it carries, 0 for none


@dataclass(frozen=True, slots=True)
class Beep:
    """One beep on its way, every time it was seen."""

    captured: float
    packet: float
    pcm: float
    made: float
    sent: float
    received: float | None
    shown: float
    heard: float | None
    into_frame: float  # how far into its frame's sound it begins

    @property
    def glass_to_glass_ms(self) -> float:
        """From the microphone to the screen."""
        return self.shown - self.captured

    @property
    def av_skew_ms(self) -> float | None:
        """Sound after picture; negative when the sound is early."""
        return None if self.heard is None else self.heard - (self.shown + self.into_frame)

    def legs_ms(self) -> dict[str, float]:
        """The parts of the way; they add up to `glass_to_glass_ms`."""
        legs = {
            "capture_to_packet": self.packet - self.captured,
            "packet_to_sound": self.pcm - self.packet,
            "sound_to_frame": self.made - self.pcm,
            "frame_to_encoder": self.sent - self.made,
        }
        if self.received is None:
            legs["encoder_to_screen"] = self.shown - self.sent
        else:
            legs["encoder_to_page"] = self.received - self.sent
            legs["page_to_screen"] = self.shown - self.received
        return legs


def read_frames(rows: Sequence[Sequence[Any]]) -> list[Shown]:
    """Turn the recorder's rows `[shown, called, received, presented, code]` into frames."""
    frames = []
    for shown, _, received, presented, code in rows:
        counter = stamp = None
        beep = 0
        if code is not None:
            counter, low, flags, number = code
            stamp = full_stamp(low, shown)
            beep = number if flags & FLAG_BEEP else 0
        frames.append(Shown(shown, received, presented, stamp, counter, beep))
    return frames


def full_stamp(low: int, near: float) -> float:
    """The wall clock whose low 32 bits are `low`, next to the time `near`."""
    span = 1 << 32
    return low + span * round((near - low) / span)


def match(
    captured: Sequence[float],
    events: Sequence[Mapping[str, Any]],
    frames: Sequence[Shown],
    heard: Sequence[float],
    sample_rate_hz: float = 48_000,
    fps: float = 25,
) -> list[Beep]:
    """Follow every beep through microphone, server, picture and sound.

    A beep whose capture, packet, frame or picture is missing is left out; a missing sound is None.

    Args:
        captured: when the page's microphone heard beeps, ascending.
        events: the server's rows of `/api/test/events`; their times are Unix seconds.
        frames: what the page showed.
        heard: when beeps came out of the page's sound, ascending.
    """
    beeps = []
    for event in events:
        times = [event[name] for name in ("mic_packet", "pcm", "frame_made", "frame_sent")]
        if any(t is None for t in times):
            continue
        packet, pcm, made, sent = (t * 1000 for t in times)
        begin = _latest(captured, packet, SLOWEST_MS)
        frame = _first_shown(frames, event["id"], sent)
        if begin is None or frame is None:
            continue
        into_frame = (event["sample"] % (sample_rate_hz / fps)) * 1000 / sample_rate_hz
        sound = _nearest(heard, frame.shown + into_frame, 500.0)
        beeps.append(
            Beep(begin, packet, pcm, made, sent, frame.received, frame.shown, sound, into_frame)
        )
    return beeps


def _latest(times: Sequence[float], before: float, within: float) -> float | None:
    """The last of ascending `times` that is at most `within` before `before`."""
    at = bisect_left(times, before)
    return times[at - 1] if at and before - times[at - 1] <= within else None


def _nearest(times: Sequence[float], to: float, within: float) -> float | None:
    """The one of `times` next to `to`, at most `within` away."""
    best = min(times, key=lambda t: abs(t - to), default=None)
    return best if best is not None and abs(best - to) <= within else None


def _first_shown(frames: Sequence[Shown], beep: int, sent: float) -> Shown | None:
    """The first frame on the screen with this beep, after the server sent it."""
    found = (f for f in frames if f.beep == beep and -50 <= f.shown - sent <= SLOWEST_MS)
    return min(found, key=lambda f: f.shown, default=None)


def percentiles(values: Sequence[float], digits: int = 1) -> dict[str, float | None]:
    """p50, p95 and the worst; None for all of them when there is nothing to count."""
    if not values:
        return {"p50": None, "p95": None, "max": None}
    p50, p95 = np.percentile(values, [50, 95])
    return {
        "p50": round(float(p50), digits),
        "p95": round(float(p95), digits),
        "max": round(float(max(values)), digits),
    }


def longest_gap_s(frames: Sequence[Shown]) -> float:
    """The longest time between two frames noted by the page; an upper bound of the worst freeze."""
    if len(frames) < 2:
        return float("inf")
    return float(np.diff([f.shown for f in frames]).max() / 1000)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Speed of the browser's sound devices against the wall clock; 1.0 is right."""

    microphone: float
    playout: float

    @property
    def healthy(self) -> bool:
        """Whether latencies of this run mean anything."""
        return min(self.microphone, self.playout) >= HEALTHY_CLOCK


def objections(clocks: Clocks, others_cores: float, connections: int) -> list[str]:
    """Why a run must not count; empty for a good run."""
    found = []
    if not clocks.healthy:
        found.append(
            f"a sound clock of the browser ran at {min(clocks.microphone, clocks.playout)} "
            f"of real time, {HEALTHY_CLOCK} is the least"
        )
    if others_cores > MOST_OTHERS_CORES:
        found.append(
            f"other programs took {others_cores} cores of the machine, "
            f"{MOST_OTHERS_CORES} is the most"
        )
    if connections != 1:
        found.append(f"the page connected {connections} times instead of once")
    return found


def clocks(before: Mapping[str, float], after: Mapping[str, float]) -> Clocks:
    """Clock speeds from two `getStats` totals: 20 ms a packet sent, 48 kHz of sound received."""
    wall_s = (after["at"] - before["at"]) / 1000
    packets = after["packetsSent"] - before["packetsSent"]
    samples = after["audio.totalSamplesReceived"] - before["audio.totalSamplesReceived"]
    return Clocks(round(packets * 0.02 / wall_s, 4), round(samples / 48_000 / wall_s, 4))
