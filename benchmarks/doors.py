"""What a listener notices of an assistant's voice, through every door, received in a real browser.

For each door: opens a session with the client library that its users have, lets Chromium join as the
viewer, says 10 s of speech in 1 s, and cuts it off at a random moment between 1.5 and 3 s; so often as
`--trials` says. The voice is made up and never pauses, so the last loud sample and the last open
mouth are those of the old speech.

  first sound     from the first sound that left the client to the first that the browser plays
  first frame     the same for the first shown frame of the utterance
  open lips       the same for the first one with open lips
  old sound       from the interruption asked for to the last of the old voice that is played
  at rest         the same to the first shown frame whose lips are closed for good
  position error  how much of the utterance the interruption acknowledged as played against how much was heard:
                  in the browser, where the last of the old voice is found in what was said (Chromium stretches
                  sound, so that time is no measure of it); with Pipecat at the pipeline's own output, which
                  plays to somebody else

Figures of a browser and a server that share two slow processors hold for those.

Examples:
  python -m benchmarks.doors
  python -m benchmarks.doors --doors WebSocket --trials 5
  python -m benchmarks.doors --server-command "python -m tests.server.fake_server --step-ms 5"
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from playwright.sync_api import Page

from benchmarks import felt
from benchmarks.beeps import SoundClock
from benchmarks.browser import launch, new_page
from benchmarks.door_clients import DOORS, DoorClient
from benchmarks.doors_plot import TITLES, draw
from benchmarks.environment import describe, print_header, print_json
from benchmarks.server_process import (
    ServerProcess,
    add_server_arguments,
    describe_server,
    measured_server,
)
from benchmarks.voice import voice

HERE = Path(__file__).parent
COLUMNS = tuple(TITLES)
T = TypeVar("T")


class Loop:
    """An event loop on a thread of its own: the browser's control blocks this one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return the result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        """Stop the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.doors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [door.name for door in DOORS]
    parser.add_argument("--doors", nargs="+", choices=names, default=names, help="which (all)")
    parser.add_argument("--trials", type=int, default=12, help="utterances for each door (12)")
    add_server_arguments(parser)
    parser.add_argument(
        "--out", type=Path, help="also write the JSON to this file, and a picture beside it"
    )
    return parser.parse_args()


def trial(
    door: DoorClient, loop: Loop, page: Page, server: ServerProcess, session: str, hold_s: float
) -> felt.Felt:
    """Say, cut off, and judge what the browser received."""
    page.evaluate("window.__recorder.start({ keepSound: true })")
    page.wait_for_timeout(400)
    spoken = voice(10.0)
    said = loop.run(door.say(spoken))
    page.wait_for_timeout(1000 * hold_s)
    cut, position = loop.run(door.interrupt())
    page.wait_for_timeout(1200)
    noted = page.evaluate("window.__recorder.take()")
    rows = server.get("/api/test/frames")["frames"]
    left = {row["number"]: row for row in rows if row["session"] == session}
    heard = noted["heard"]
    clock = SoundClock([tuple(c[:3]) for c in heard["chunks"]], heard["rate"], device=False)
    sounds = [
        felt.Sound(clock.wall_ms(begin), size, peak) for _, begin, size, peak in heard["chunks"]
    ]
    until = felt.heard_until(
        np.frombuffer(base64.b64decode(heard["sound"]), np.int16), spoken, heard["rate"]
    )
    frames = [
        felt.Seen(shown, code[0], left[code[0]]["parted"], left[code[0]]["spoken"])
        for shown, _, _, _, code in noted["frames"]
        if code is not None and code[0] in left
    ]
    return felt.feel(
        sounds,
        frames,
        said=1000 * said,
        cut=1000 * cut,
        position=position,
        heard=until if door.heard_ms is None else door.heard_ms,
        rate_hz=heard["rate"],
    )


def measure(kind: type[DoorClient], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One door in a fresh server and browser."""
    rng = random.Random(0)
    door, loop = kind(), Loop()
    found: list[felt.Felt] = []
    args = ("--autoplay-policy=no-user-gesture-required",)
    try:
        with (
            measured_server(folder / f"{kind.name}.txt", options) as server,
            launch(extra=args) as browser,
        ):
            page = new_page(browser)
            for script in ("recorder.js", "receiver.js"):
                page.context.add_init_script(path=HERE / script)
            page.goto(f"{server.url}/healthz")
            session = loop.run(door.open(server.url))
            page.evaluate("id => window.__join(id)", session)
            page.wait_for_timeout(3000)
            found += [
                trial(door, loop, page, server, session, rng.uniform(1.5, 3.0))
                for _ in range(options.trials)
            ]
            loop.run(door.close())
    finally:
        loop.close()
    return {"door": kind.name, "client": kind.client, **felt.summary(found)}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print all doors for people: p50 / p95 in ms."""
    print(
        f"  {'door':14}{'client':24}" + "".join(f"{name.replace('_', ' '):>18}" for name in COLUMNS)
    )
    for row in rows:
        cells = [
            f"{row[name]['p50']:.0f} / {row[name]['p95']:.0f}" if name in row else "-"
            for name in COLUMNS
        ]
        print(f"  {row['door']:14}{row['client']:24}" + "".join(f"{cell:>18}" for cell in cells))


def main() -> None:
    """Run the benchmark."""
    options = arguments()
    about = describe()
    print_header("doors: an assistant's voice, received in Chromium (ms, p50 / p95)", about)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for kind in DOORS:
            if kind.name in options.doors:
                rows.append(measure(kind, options, Path(name)))
                print_table(rows[-1:])
    print_table(rows)
    result = {"benchmark": "doors", "rows": rows, **about, **describe_server(options)}
    print_json(result, options.out)
    if options.out is not None:
        cpu = about["hardware"]["cpu"]
        said = (
            f"{cpu}, {about['hardware']['cores']} cores shared with the browser; {about['commit']}"
        )
        draw(rows, said, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
