"""A microphone, an uneven network and an intake in simulated time: minutes pass in a blink."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from server.sound.intake import PACKET_SAMPLES, SOUND_RATE_HZ, Intake, Pcm48
from server.webrtc.aiortc_internals import AudioPackets

PACKET_S = PACKET_SAMPLES / SOUND_RATE_HZ
SPOKEN_FROM_S = 1.0  # silence flows before
DECODING_S = 0.002
TICK_S = 0.010
COARSE = 4  # every fourth sample is enough to measure a delay
LOOK_BACK = SOUND_RATE_HZ // 2
Delay = Callable[[np.random.Generator], float]
Arrival = tuple[float, int]  # when a packet comes, and its number


def voice(seconds: float, seed: int = 0) -> Pcm48:
    """Half voiced syllables that rise and fall, half pauses with a little noise, `(N,)`."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(seconds * SOUND_RATE_HZ)) / SOUND_RATE_HZ
    tenths = np.arange(0, seconds + 0.2, 0.1)  # its melody never repeats
    pitch = np.interp(at, tenths, rng.uniform(90, 180, len(tenths)))
    turns = np.cumsum(pitch) / SOUND_RATE_HZ
    buzz = sum(np.sin(2 * np.pi * k * turns) / k for k in range(1, 8))
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * at) ** 2
    # Speaks and pauses in turns; the edges last 20 ms.
    speaks = np.clip(0.5 + 25 * np.sin(2 * np.pi * 0.35 * at + 1 + seed), 0, 1)
    return np.asarray(5000 * speaks * syllables * buzz + rng.normal(0, 30, len(at)), np.int16)


def tone(seconds: float) -> Pcm48:
    """An unbroken hum, `(N,)`."""
    at = np.arange(int(seconds * SOUND_RATE_HZ)) / SOUND_RATE_HZ
    return np.asarray(8000 * np.sin(2 * np.pi * 220 * at), np.int16)


def noise(seconds: float) -> Pcm48:
    """A loud fan, `(N,)`."""
    rng = np.random.default_rng(0)
    return np.asarray(rng.normal(0, 2000, int(seconds * SOUND_RATE_HZ)), np.int16)


def arrivals(
    seconds: float,
    delay: Delay = lambda rng: 0.0,
    *,
    loss: float = 0.0,
    drift: float = 0.0,
    in_order: bool = False,
    seed: int = 0,
) -> list[Arrival]:
    """When the packets come that a microphone sends for so long; its clock is `drift` fast."""
    rng = np.random.default_rng(seed)
    came: list[Arrival] = []
    for number in range(int(seconds / PACKET_S)):
        sent = SPOKEN_FROM_S + (number + 1) * PACKET_S / (1 + drift)
        at = sent + delay(rng)
        if in_order and came:
            at = max(at, came[-1][0] + 1e-4)
        if number == 0 or rng.random() >= loss:
            came.append((at, number))
    return sorted(came)


@dataclass
class Heard:
    """What came of it."""

    intake: Intake
    packets: AudioPackets
    arrivals: Sequence[Arrival]
    out: Pcm48 = field(default_factory=lambda: np.zeros(0, np.int16))
    times: list[tuple[float, int]] = field(default_factory=list)  # (when, samples returned by then)
    at_once: int = 0  # packets returned, whole, when they were decoded
    targets: list[tuple[float, float]] = field(default_factory=list)

    @property
    def damaged(self) -> float:
        """The share of the sound that was dropped, made up, left out or played twice.

        What was made up for a packet that then came too late is the same damage, not more.
        """
        dropped = self.packets.packets.late * PACKET_SAMPLES + self.intake.late
        bad = max(dropped, self.intake.concealed) + self.intake.stretched
        return bad / (len(self.arrivals) * PACKET_SAMPLES)

    def behind_s(self) -> list[float]:
        """How far the line was behind the clock whenever something was returned."""
        return [when - fed / SOUND_RATE_HZ for when, fed in self.times]

    def delay_s(self, sent: Pcm48, at: float, drift: float = 0.0) -> float | None:
        """How long before the time `at` the sound was spoken that was returned then.

        Found by looking for the last 50 ms in what was sent; None where they are not like any of it.
        """
        when, fed = max(each for each in self.times if each[0] <= at)
        spoken = int((when - SPOKEN_FROM_S) * (1 + drift) * SOUND_RATE_HZ)
        piece = self.out[fed - 2400 : fed : COARSE].astype(np.float64)
        near = sent[max(0, spoken - LOOK_BACK) : spoken : COARSE].astype(np.float64)
        if len(near) < len(piece) or np.abs(piece).max(initial=0) < 1000:
            return None
        energies = np.convolve(near**2, np.ones(len(piece)), "valid")
        alike = np.correlate(near, piece, "valid") / np.sqrt(energies * np.sum(piece**2) + 1)
        best = int(np.argmax(alike))
        if alike[best] < 0.98:
            return None
        return (len(near) - len(piece) - best) * COARSE / SOUND_RATE_HZ


def listen(came: Sequence[Arrival], sent: Pcm48, seconds: float, *, ticks: bool = True) -> Heard:
    """Let these packets come to an intake that is ticked every 10 ms."""
    now = [0.0]
    packets, intake = AudioPackets(clock=lambda: now[0]), Intake(0.0)
    packets.arrivals = intake.arrivals
    heard = Heard(intake, packets, came)
    parts: list[Pcm48] = []
    events: list[tuple[float, int, str, int]] = []

    order = itertools.count()

    def plan(at: float, what: str, number: int = 0) -> None:
        heapq.heappush(events, (at, next(order), what, number))

    def keep(pcm: Pcm48) -> int:
        if len(pcm):
            parts.append(pcm)
            heard.times.append((now[0], intake.fed))
        return len(pcm)

    first = came[0][1]  # time stamps count from there
    for at, number in came:
        plan(at, "packet", number)
    for i in range(int(seconds / TICK_S) if ticks else 0):
        plan(0.0037 + i * TICK_S, "tick")
    while events and events[0][0] <= seconds:
        now[0], _, what, number = heapq.heappop(events)
        frames = []
        if what == "packet":
            _, frame = packets.add(packet(number, number * PACKET_SAMPLES))
            frames = [f for f in (frame, *packets.more) if f is not None]
        elif what == "expire":
            frames = packets.expire()
        elif what == "decoded":
            pts = (number - first) * PACKET_SAMPLES
            pcm = sent[number * PACKET_SAMPLES : (number + 1) * PACKET_SAMPLES]
            count = keep(intake.push(pts, pcm, now[0], packets.arrived_at(pts)))
            heard.at_once += count >= PACKET_SAMPLES
        else:
            keep(intake.tick(now[0]))
            heard.targets.append((now[0], intake.target_delay_s))
        for frame in frames:
            plan(now[0] + DECODING_S, "decoded", frame.timestamp // PACKET_SAMPLES)
        wait = packets.expires_in()
        if wait is not None and what != "tick":
            plan(now[0] + wait, "expire")
    heard.out = np.concatenate(parts)
    return heard


def packet(sequence: int, timestamp: int, payload: bytes = b"x") -> SimpleNamespace:
    """What the receive buffer looks at of an RTP packet."""
    return SimpleNamespace(
        sequence_number=sequence % (1 << 16), timestamp=timestamp, payload=payload, _data=payload
    )
