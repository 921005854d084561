"""How many faces does this machine serve? Viewers without a browser, each with a voice of its own that never pauses.

For each number of viewers a server of that many places starts, all talk at once, and after a while each counts:

  fps       pictures that came a second: of the slowest viewer and of the fastest
  sound     share of the 20 ms packets in which the voice is heard: of the worst viewer
  step      of the quality ladder, 0 is the best: the mean over all frames
  CPU       processors that the server used; the viewers decode on the same machine and use more

Examples:
  python -m benchmarks.viewers
  python -m benchmarks.viewers --viewers 1 2 3 --seconds 30 --out runs/viewers.json
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from benchmarks.environment import describe, print_header, print_json
from benchmarks.server_process import (
    ServerProcess,
    add_server_arguments,
    describe_server,
)
from benchmarks.voice import voice, wav
from client_example.headless import FileMicrophone, Viewer

VOICE_S = 20.0
LOUD = 0.02  # of full scale
MADE = re.compile(r'^portraittalk_frames_made_total\{quality="(\d+)"\} (\S+)$', re.MULTILINE)


class Listener:
    """One viewer and what came to him in the time that counts."""

    def __init__(self, url: str) -> None:
        self.viewer = Viewer(url)
        self.frames = self.packets = self.loud = 0
        self.viewer.on_frame.append(self._see)
        self.viewer.on_sound.append(self._hear)

    def begin(self) -> None:
        """What comes from now on counts."""
        self.frames = self.packets = self.loud = 0

    def _see(self, frame: av.VideoFrame) -> None:
        self.frames += 1

    def _hear(self, frame: av.AudioFrame) -> None:
        self.packets += 1
        self.loud += int(np.abs(frame.to_ndarray().astype(np.int32)).max() > LOUD * 32768)


def made(url: str) -> dict[int, float]:
    """Frames made so far by step of the ladder."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {int(step): float(count) for step, count in MADE.findall(text)}


def mean_step(before: dict[int, float], after: dict[int, float]) -> float | None:
    """Of the frames that were made between two looks; None: there were none."""
    counts = {step: count - before.get(step, 0) for step, count in after.items()}
    total = sum(counts.values())
    return sum(step * count for step, count in counts.items()) / total if total else None


async def watch(
    server: ServerProcess, viewers: int, sound: Path, *, settling: float, seconds: float
) -> dict[str, Any]:
    """So many viewers talk at once; what comes after `settling` seconds counts, for `seconds`."""
    listeners = [Listener(server.url) for _ in range(viewers)]
    try:
        for listener in listeners:
            await listener.viewer.connect(FileMicrophone(sound, loop=True))
        await asyncio.sleep(settling)
        process = psutil.Process(server.pid)
        steps, used, began = made(server.url), sum(process.cpu_times()[:2]), time.monotonic()
        for listener in listeners:
            listener.begin()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        cpu = (sum(process.cpu_times()[:2]) - used) / took
        fps = [listener.frames / took for listener in listeners]
        heard = [listener.loud / (50 * took) for listener in listeners]
        step = mean_step(steps, made(server.url))
    finally:
        await asyncio.gather(*(listener.viewer.close() for listener in listeners))
    return {
        "viewers": viewers,
        "fps_slowest": round(min(fps), 1),
        "fps_fastest": round(max(fps), 1),
        "sound": round(min(heard), 3),
        "step": None if step is None else round(step, 2),
        "cpu": round(cpu, 2),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.viewers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--viewers", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument("--seconds", type=float, default=20, help="that count, each time (20)")
    parser.add_argument(
        "--settling", type=float, default=12, help="seconds before, for the ladder (12)"
    )
    add_server_arguments(parser)
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    options = parser.parse_args()
    about = describe()
    print_header("viewers: faces on this machine at once", about)
    print(f"  {'viewers':>7} {'fps':>13} {'sound':>7} {'step':>6} {'CPU':>6}")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        sound = Path(name) / "voice.wav"
        sound.write_bytes(wav(voice(VOICE_S)))
        for count in options.viewers:
            places = ("--max-sessions", str(count), "--capacity", str(count))
            server = ServerProcess(
                Path(name) / "server.txt",
                tuple(options.server_command),
                places,
                cores=options.cores,
            )
            with server:
                talk = watch(
                    server, count, sound, settling=options.settling, seconds=options.seconds
                )
                row = asyncio.run(talk)
            rows.append(row)
            fps = f"{row['fps_slowest']}-{row['fps_fastest']}"
            print(f"  {count:7} {fps:>13} {row['sound']:7.1%} {row['step']!s:>6} {row['cpu']:6}")
    print_json(
        {"benchmark": "viewers", "rows": rows, **about, **describe_server(options)}, options.out
    )


if __name__ == "__main__":
    main()
