"""How many sessions do so many GPUs carry? A discrete-event simulation driven by measured step times.

First `AvatarEngine.step_many` of the sd15 profile is timed for 1, 2, 4 and 8 streams at once, in turns
with the same streams one after another. Then sessions are simulated on 1 to 64 workers: a session
joins the worker with the fewest, wants a frame every 40 ms (`--every 2`: every 80 ms), and leaves
after a while, when another one comes. A worker does what the engine thread does: it takes the streams that are due, the
longest wait first, at most 8, waits for nobody, and is busy for one of the times measured for so many.

  wait   from the sound until its frame is drawn, beside the look-ahead; a frame that waits longer
         than 120 ms delays the sound or is dropped (`server.live.clock`)

On a CPU the times are processor time of one thread, so that other programs do not count; a worker is
then one such thread. On a GPU (`--device cuda --size full`) they are wall-clock, and a worker is a GPU.

Examples:
  python -m benchmarks.capacity --out runs/capacity.json --plot runs/capacity.png
  python -m benchmarks.capacity --device cuda --size full --out runs/capacity_gpu.json
  python -m benchmarks.capacity --times runs/capacity_gpu.json --plot runs/capacity_gpu.png
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.environment import describe, print_header, print_json
from engine.config import DiffusionSettings, EngineConfig
from server.live.clock import MAX_EXTRA_S

BATCHES = (1, 2, 4, 8)
WORKERS = (1, 2, 4, 8, 16, 32, 64)
FRAME_S = 0.04  # of sound
LIFE_S = 60.0  # mean length of a session
Times = dict[int, list[float]]  # seconds of a step, by how many streams take it


def measure(size: Any, device: Any, steps: int, rounds: int) -> tuple[Times, dict[str, float]]:
    """Times of a step of each batch, and how many times faster a batch is than one after another."""
    import torch

    from engine.face.image_file import decode_image
    from engine.profiles.sd15 import load_engine
    from server.settings import BUNDLED_PORTRAIT

    torch.set_num_threads(1)
    clock: Callable[[], float] = time.process_time
    if device == "cuda":
        clock = time.perf_counter
    how = DiffusionSettings(random_weights=size, device=device)
    config = EngineConfig.sd15(
        live=True, num_inference_steps=steps, threads=1, batch=max(BATCHES), diffusion=how
    )
    engine = load_engine(config)
    who = engine.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes()))
    hop = np.zeros(engine.config.stream.hop_samples, np.float32)
    states = [engine.start(who, seed=seed) for seed in range(max(BATCHES))]
    for _ in range(engine.config.stream.lookahead_frames + 2):
        engine.step_many([(state, hop) for state in states])
    times: Times = {count: [] for count in BATCHES}
    turns: dict[int, list[float]] = {count: [] for count in BATCHES}
    for _ in range(rounds):
        for count in BATCHES:
            rows = [(state, hop) for state in states[:count]]
            began = clock()
            for row in rows:
                engine.step_many([row])
            middle = clock()
            engine.step_many(rows)
            times[count].append(clock() - middle)
            turns[count].append((middle - began) / times[count][-1])
    return times, {str(count): round(float(np.median(turns[count])), 2) for count in BATCHES}


@dataclass(frozen=True, slots=True)
class Stay:
    """One session's time on a worker, in seconds."""

    worker: int
    begin: float
    end: float


def stays(workers: int, sessions: int, seconds: float, rng: np.random.Generator) -> list[Stay]:
    """Sessions that come and go, so many at any time, each on the worker that had the fewest."""
    held = [0] * workers
    made, leaving = [], []

    def join(at: float) -> None:
        worker = held.index(min(held))
        held[worker] += 1
        end = at + float(rng.exponential(LIFE_S))
        made.append(Stay(worker, at, min(end, seconds)))
        heapq.heappush(leaving, (end, worker))

    for _ in range(sessions):
        join(float(rng.uniform(0, FRAME_S)))
    while leaving[0][0] < seconds:
        at, worker = heapq.heappop(leaving)
        held[worker] -= 1
        join(at)
    return made


def waits(own: Sequence[Stay], times: Times, gap_s: float, rng: np.random.Generator) -> list[float]:
    """Seconds that the frames of one worker's sessions wait, in the order they are drawn."""
    due = sorted(
        (at, i)
        for i, stay in enumerate(own)
        for at in np.arange(stay.begin, stay.end, gap_s).tolist()
    )
    takes = {k: times[min(n for n in times if n >= k)] for k in range(1, max(times) + 1)}
    waiting: list[tuple[float, int]] = []
    waited: list[float] = []
    now, at = 0.0, 0
    while at < len(due) or waiting:
        if not waiting:
            now = max(now, due[at][0])
        while at < len(due) and due[at][0] <= now:
            heapq.heappush(waiting, due[at])
            at += 1
        taken = _taken(waiting, max(times))
        measured = takes[len(taken)]
        now += measured[int(rng.random() * len(measured))]
        waited += [now - came for came, _ in taken]
    return waited


def _taken(waiting: list[tuple[float, int]], most: int) -> list[tuple[float, int]]:
    """The frames of a step: the longest wait first, one of a session."""
    taken: list[tuple[float, int]] = []
    later: list[tuple[float, int]] = []
    sessions: set[int] = set()
    while waiting and len(taken) < most:
        frame = heapq.heappop(waiting)
        if frame[1] in sessions:
            later.append(frame)
            continue
        sessions.add(frame[1])
        taken.append(frame)
    for frame in later:
        heapq.heappush(waiting, frame)
    return taken


def p99_ms(workers: int, sessions: int, times: Times, gap_s: float, seconds: float) -> float:
    """The wait in ms that 99 of 100 frames stay below."""
    rng = np.random.default_rng([workers, sessions])
    placed = stays(workers, sessions, seconds, rng)
    waited: list[float] = []
    for worker in range(workers):
        own = [stay for stay in placed if stay.worker == worker]
        waited += waits(own, times, gap_s, rng)
    return round(1000 * float(np.percentile(waited, 99)), 1)


def simulate(times: Times, gap_s: float, seconds: float) -> list[dict[str, Any]]:
    """For each number of workers: sessions against p99, until it is far over the limit."""
    carried = max(gap_s * n / np.mean(own) for n, own in times.items())  # by one worker, at best
    rows = []
    for workers in WORKERS:
        loads = sorted({max(1, round(workers * carried * share)) for share in _SHARES})
        points = [(load, p99_ms(workers, load, times, gap_s, seconds)) for load in loads]
        fits = [n for n, wait in points if wait <= 1000 * MAX_EXTRA_S]
        rows.append({"workers": workers, "sessions": max(fits, default=0), "p99_ms": points})
    return rows


_SHARES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1)


def plot(rows: Sequence[dict[str, Any]], path: Path, worker: str) -> None:
    """Sessions against p99 into a PNG, both on logarithmic scales, a line for each number of workers."""
    points = [point for row in rows for point in row["p99_ms"]]
    across = _Scale(min(x for x, _ in points), max(x for x, _ in points), LEFT, WIDTH - 30)
    up = _Scale(min(y for _, y in points), max(y for _, y in points), HEIGHT - 60, 50)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    pen.text((LEFT, 8), f"sd15, simulated from measured steps; a worker: {worker}", INK, font)
    pen.text((LEFT, 26), "p99 of a frame's wait in ms, against sessions", INK, font)
    for x in across.ticks():
        pen.line((across(x), 50, across(x), HEIGHT - 60), FAINT)
        pen.text((across(x) - 10, HEIGHT - 54), f"{x:g}", INK, font)
    for y in up.ticks():
        pen.line((LEFT, up(y), WIDTH - 30, up(y)), FAINT)
        pen.text((LEFT - 44, up(y) - 8), f"{y:g}", INK, font)
    limit = up(1000 * MAX_EXTRA_S)
    pen.line((LEFT, limit, WIDTH - 30, limit), BAR, 2)
    for row, colour in zip(rows, COLOURS, strict=False):
        line = [(across(x), up(y)) for x, y in row["p99_ms"]]
        pen.line(line, colour, 2)
        for x, y in line:
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
        pen.text((line[-1][0] - 8, line[-1][1] - 18), str(row["workers"]), colour, font)
    said = "number at a line's end: workers; thick line: 120 ms, what a live line of sound gives a frame"
    pen.text((LEFT, HEIGHT - 28), said, INK, font)
    image.save(path, optimize=True)


WIDTH, HEIGHT, LEFT = 860, 540, 64
INK, FAINT, BAR = "#222222", "#dddddd", "#888888"
COLOURS = ("#3050a0", "#2b7a4b", "#b5532a", "#7a2b6b", "#2b7a7a", "#8a7a10", "#a03050")


class _Scale:
    """A logarithmic scale from `low` to `high`, with some air, on pixels `begin` to `end`."""

    def __init__(self, low: float, high: float, begin: int, end: int) -> None:
        self._low, self._high = math.log(max(low, 0.1) / 1.3), math.log(high * 1.3)
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        share = (math.log(max(value, 0.1)) - self._low) / (self._high - self._low)
        return self._begin + share * (self._end - self._begin)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of every decade in it."""
        all_of_them = [digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5)]
        return [value for value in all_of_them if self._low <= math.log(value) <= self._high]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("small", "full"), default="small", help="(small)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps a frame (4)")
    parser.add_argument(
        "--every", type=int, default=1, help="frames from one drawn to the next (1)"
    )
    parser.add_argument("--rounds", type=int, default=20, help="steps timed of each batch (20)")
    parser.add_argument("--seconds", type=float, default=20, help="simulated (20)")
    parser.add_argument("--times", type=Path, help="an earlier result, in place of measuring")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    parser.add_argument("--plot", type=Path, help="draw sessions against p99 into this PNG")
    args = parser.parse_args()
    about = describe()
    print_header("capacity: sessions on 1 to 64 workers", about)
    if args.times:
        kept = json.loads(args.times.read_text())
        times = {int(count): own for count, own in kept["step_s"].items()}
        result = {name: kept[name] for name in ("worker", "faster_together", "step_s")} | {
            "measured": kept.get("measured", about)
        }
    else:
        times, faster = measure(args.size, args.device, args.steps, args.rounds)
        worker = "a GPU" if args.device == "cuda" else "a CPU thread"
        rounded = {n: [round(s, 5) for s in own] for n, own in times.items()}
        result = {
            "worker": f"{args.size} nets, {args.steps} steps, {worker}",
            "faster_together": faster,
        }
        result |= {"step_s": rounded, "measured": about}
    rows = simulate(times, args.every * FRAME_S, args.seconds)
    for row in rows:
        print(f"  {row['workers']:3} workers: {row['sessions']:5} sessions with p99 <= 120 ms")
    print(f"  together against one after another: {result['faster_together']}")
    if args.plot:
        plot(rows, args.plot, result["worker"])
    print_json(
        {
            "benchmark": "capacity",
            **result,
            "simulated_s": args.seconds,
            "draw_every": args.every,
            "rows": rows,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
