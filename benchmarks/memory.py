"""Memory of the server, its real engine loaded, while viewers come and go.

Prints a table, then one JSON line:

    python -m benchmarks.memory --out benchmarks/results/memory.json

A viewer connects, speaks for a while and hangs up, `--cycles` times; after each the server is given
time to put things away. Linux only: sizes are read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import av

from benchmarks.beeps import write_wav
from benchmarks.environment import describe, print_header, print_json
from benchmarks.frames_child import voice
from benchmarks.server_process import ServerProcess
from client_example.headless import FileMicrophone, Viewer

SETTLE_S = 2.0  # the server collects its garbage a second after the last viewer
BAR_MIB = 20.0


def resident_mib(pid: int) -> float:
    """Memory of a process that is in use and not shared with others, MiB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) for line in rollup[1:]}
    return (sizes["Private_Clean:"] + sizes["Private_Dirty:"]) / 1024


async def visit(server: ServerProcess, sound: Path, frames: int, patience_s: float) -> int:
    """Connect, watch `frames` frames while speaking, hang up, wait until nobody is there."""
    viewer = Viewer(server.url)
    enough, seen = asyncio.Event(), 0

    def count(frame: av.VideoFrame) -> None:
        nonlocal seen
        seen += 1
        if seen >= frames:
            enough.set()

    viewer.on_frame.append(count)
    try:
        await viewer.connect(FileMicrophone(sound, loop=True))
        with contextlib.suppress(TimeoutError):  # a busy machine shows fewer: they are reported
            await asyncio.wait_for(enough.wait(), patience_s)
    finally:
        await viewer.close()
    begun = time.monotonic()
    while (await asyncio.to_thread(server.get, "/healthz"))["sessions"]:
        if time.monotonic() - begun > patience_s:
            raise RuntimeError("the server does not let go of a viewer who hung up")
        await asyncio.sleep(0.05)
    await asyncio.sleep(SETTLE_S)
    return seen


def measure(cycles: int, frames: int, patience_s: float) -> dict[str, Any]:
    """Sizes before the first viewer and after each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_wav(folder / "voice.wav", voice(4), 16_000)
        with ServerProcess(folder / "server.txt") as server:
            sizes, seen = [resident_mib(server.pid)], []
            for _ in range(cycles):
                seen.append(asyncio.run(visit(server, folder / "voice.wav", frames, patience_s)))
                sizes.append(resident_mib(server.pid))
    return {
        "before_mib": round(sizes[0], 1),
        "after_each_mib": [round(size, 1) for size in sizes[1:]],
        "frames_seen": seen,
        "growth_mib": round(sizes[-1] - sizes[1], 1),
        "bar_mib": BAR_MIB,
    }


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=10, help="viewers, one after another")
    parser.add_argument("--frames", type=int, default=75, help="frames each of them watches")
    parser.add_argument("--patience", type=float, default=30, help="seconds a viewer waits at most")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    about = describe()
    result = measure(options.cycles, options.frames, options.patience)
    print_header("Memory of the server (private, MiB)", about)
    print(f"  before anybody came  {result['before_mib']:>8}")
    for number, size in enumerate(result["after_each_mib"], 1):
        print(f"  after viewer {number:<6}  {size:>8}   {result['frames_seen'][number - 1]} frames")
    print(f"  growth since the first {result['growth_mib']:>6}   (bar {BAR_MIB})")
    print_json({"benchmark": "memory", **result, **about}, options.out)


if __name__ == "__main__":
    main()
