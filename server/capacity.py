"""How many viewers does this machine serve well? Measured at start, corrected while it runs.

A viewer is served well with 20 frames a second and all of its sound. What a frame takes is measured at the
lowest quality that still draws every frame, for streams that share their steps where that pays, and on all
engine threads side by side: where processors are siblings of one core, two gain little and each takes more processor time.
With the encoder's part and a fixed one for the network it must fit the processors, and the engine's part alone
what its threads do together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engine.types import Engine, Quality, RgbImage
from server.live.quality import LADDER
from server.live.yuv import as_frame, to_yuv
from server.priority import give_way
from server.webrtc.encoders import make_vp8

MEASURED_S = 0.4  # spent at each quality, at least one frame
WARM_UP = 4  # frames
SHARES = ("sd15",)  # profiles whose streams are drawn in the same calls of large networks
SLOWEST_S = 1.0  # a frame that takes so long is measured once
FPS = 20.0  # what a viewer is promised
BUSIEST = 0.85  # share of the processors, and of the engine threads, that may be used
NETWORK_S = 0.008  # of processor time a frame: Opus, packets, encryption, the event loop; .2 of a processor as seen
SAME = 1.05  # a machine that is hardly slower is as it was
LOOK_S = 5.0  # of the past that correct the measurement
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class FrameCost:
    """What one frame of one viewer takes, in seconds."""

    engine_s: float  # of an engine thread alone, at the lowest quality that draws every frame
    full_s: float  # the same at full quality
    engine_cpu_s: float  # of all processors, beside the other engine threads
    encode_s: float
    # Streams that step together, and what a frame of theirs takes: of an engine thread, of all processors.
    together: tuple[tuple[int, float, float], ...] = ()
    side: int = 1  # engine threads
    gain: float = 1.0  # how many times the frames of one they make side by side

    @property
    def watch_s(self) -> float:
        """Of all processors, for one who sees what is drawn for another."""
        return self.encode_s + NETWORK_S

    def alone_s(self, busy_s: Sequence[float]) -> float:
        """How long one engine thread alone would have taken for what was done.

        Args:
            busy_s: for how long 1, 2 ... of the threads worked.
        """
        more = (self.gain - 1) / max(1, self.side - 1)
        return sum(s * (1 + more * others) for others, s in enumerate(busy_s))

    def places(self, cores: float, slower: float = 1.0, watchers: int = 0) -> int:
        """How many viewers so many processors carry, at least one, when all takes `slower` times as long.

        `watchers` is how many more see what is drawn for these.
        """
        left_s = BUSIEST * cores / (FPS * slower) - watchers * self.watch_s
        places = 1
        for count, engine_s, cpu_s in ((1, self.engine_s, self.engine_cpu_s), *self.together):
            threads = BUSIEST * self.gain / (FPS * engine_s * slower)
            fit = int(min(threads, left_s / (cpu_s + self.watch_s)))
            if fit >= count:  # with fewer viewers no step would have so many streams
                places = max(places, fit)
        return places

    def watchers(self, cores: float, live: int, slower: float = 1.0) -> int:
        """How many more may see what is drawn for `live` viewers."""
        left_s = BUSIEST * cores / (FPS * slower) - live * (self.engine_cpu_s + self.watch_s)
        return max(0, int(left_s / self.watch_s))


def processors() -> float:
    """How many processors this process may use: its affinity and the quota of its control group."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quota, period = _quota()
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) / int(period))
    return cores


def _quota() -> tuple[str, str]:
    """Microseconds of processor time in each period, as the control group says; no number: no limit."""
    if (_CGROUP / "cpu.max").is_file():
        quota, _, period = (_CGROUP / "cpu.max").read_text().strip().partition(" ")
        return quota, period
    files = [_CGROUP / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period")]  # version 1
    if all(file.is_file() for file in files):
        return files[0].read_text().strip(), files[1].read_text().strip()
    return "", ""


def measure(engine: Engine, identity: Any) -> FrameCost:
    """Time frames of `identity` as a stream speaks; on an engine thread, before anybody is served."""
    full_s, _, _ = _speak(engine, identity, LADDER[0])
    lowest = next(quality for quality in reversed(LADDER) if quality.draw_every == 1)
    engine_s, cpu_s, shown = _speak(engine, identity, lowest)
    sizes: tuple[int, ...] = ()
    if engine.config.profile in SHARES and engine_s < 1 / FPS:  # else nobody comes beside the first
        sizes = tuple(count for count in (2, 4, 8) if count <= engine.config.batch)
    together = [(count, *_speak(engine, identity, lowest, count)[:2]) for count in sizes]
    cost = FrameCost(engine_s, full_s, cpu_s, _encode(shown[-25:]), tuple(together))
    side = engine.config.engine_threads or 1
    if side == 1 or engine_s >= 1 / FPS:
        return cost
    with ThreadPoolExecutor(side, initializer=give_way) as pool:
        beside = list(pool.map(lambda _: _speak(engine, identity, lowest), range(side)))
    gain = engine_s * sum(1 / frame_s for frame_s, _, _ in beside)
    # Each saw the processor time of all.
    cpu_s = 1 / sum(1 / all_s for _, all_s, _ in beside)
    return replace(cost, side=side, gain=min(max(gain, 1.0), side), engine_cpu_s=cpu_s)


def _speak(
    engine: Engine, identity: Any, quality: Quality, count: int = 1
) -> tuple[float, float, list[RgbImage]]:
    """Seconds of the thread and of all processors that a frame takes, and the frames (H, W, 3).

    `count` streams step together.
    """
    states = [engine.start(identity, seed=seed) for seed in range(count)]
    for state in states:
        engine.set_quality(state, quality)
    rng = np.random.default_rng(0)
    hop = engine.config.stream.hop_samples
    loud = np.sin(np.arange(25 * hop) / 3000) * rng.standard_normal(25 * hop) * 0.1
    sound = loud.astype(np.float32).reshape(25, hop)
    shown: list[RgbImage] = []
    began, cpu, turn, longest = time.perf_counter(), time.process_time(), 0, 0.0
    while turn < WARM_UP + 1 or time.perf_counter() - began < MEASURED_S:
        if turn == WARM_UP:
            began, cpu, shown = time.perf_counter(), time.process_time(), []
        before = time.perf_counter()
        made = engine.step_many([(state, sound[turn % 25]) for state in states])
        shown += [frame.rgb for frames in made for frame in frames]
        longest = max(longest, time.perf_counter() - before)
        turn += 1
        if shown and longest > SLOWEST_S:
            break
    drawn = max(1, len(shown))
    taken, used = time.perf_counter() - began, time.process_time() - cpu
    return taken / drawn, used / drawn, shown


def _encode(frames: list[RgbImage]) -> float:
    """Seconds of processor that a live encoder takes for one of these frames (H, W, 3)."""
    height, width, _ = frames[0].shape
    codec = make_vp8(width // 2 * 2, height // 2 * 2, 1_000_000)
    codec.time_base = Fraction(1, 90_000)
    began = time.process_time()
    for i, rgb in enumerate(frames):
        frame = as_frame(to_yuv(rgb))
        frame.pts = i * 3600
        codec.encode(frame)
    return (time.process_time() - began) / len(frames)


class Capacity:
    """The number of places, as measured and as it turns out.

    Args:
        fixed: the number, if it is not to be measured.
    """

    def __init__(self, most: int, fixed: int = 0) -> None:
        self.most, self._fixed = most, fixed
        self.watching = 0  # who sees what is drawn for another
        self.cost: FrameCost | None = None
        self._cores = processors()
        self._slower = 1.0
        self._seen: tuple[float, float, int] | None = None  # when, seconds of work, frames

    @property
    def places(self) -> int:
        """How many viewers are served at once."""
        if self._fixed or self.cost is None:
            return min(self.most, self._fixed or self.most)
        return min(self.most, self.cost.places(self._cores, self._slower, self.watching))

    def watchers(self, live: int, most: int) -> int:
        """How many more, up to `most`, may see what is drawn for `live` viewers."""
        if self._fixed or self.cost is None:
            return most
        return min(most, self.cost.watchers(self._cores, live, self._slower))

    def measured(self, cost: FrameCost) -> None:
        """Take the measurement of the start."""
        self.cost = cost

    def look(self, now: float, busy_s: Sequence[float], frames: int) -> None:
        """Take note of the work so far: the machine may be slower now than at start.

        Args:
            busy_s: for how long 1, 2 ... engine threads worked.
        """
        if self.cost is None:
            return
        work_s = self.cost.alone_s(busy_s)
        if self._seen is None:
            self._seen = (now, work_s, frames)
            return
        since, work, made = self._seen
        if now - since < LOOK_S or frames - made < FPS:
            return
        self._seen = (now, work_s, frames)
        took = (work_s - work) / (frames - made)
        self._slower += 0.5 * (max(1.0, took / self.cost.full_s) - self._slower)
        if self._slower < SAME:
            self._slower = 1.0
