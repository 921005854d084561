"""Does one live viewer notice when others attack the server? And what does the server become by it?

Starts the server with 1,024 descriptors; a viewer without a browser watches. One after another, each from a
process of its own, for `--seconds` each:

  nothing    the same figures without an attack, before and after
  slow       200 clients that send a head, or a body, one byte a second
  idle       2,000 sockets that say nothing, opened anew when they are closed
  uploads    pictures too large, cut, garbled, or that promise gigapixels; four at a time
  offers     changed offers of a real client at five doors; at least `--offers` of them

and for each: the viewer's frames a second and longest freeze, the slowest `/healthz`, the server's own memory, and
the answers: a 5xx that is not "full" is a failure of the server.

Examples:
  python -m benchmarks.siege --out benchmarks/results/siege.json
  python -m benchmarks.siege --seconds 5 --server-command "python -m tests.server.fake_server"
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import re
import resource
import shlex
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection
from PIL import Image

from benchmarks.environment import ROOT, describe, print_header, print_json
from benchmarks.memory import resident_mib
from benchmarks.server_process import SERVE, ServerProcess
from client_example.headless import Viewer

DESCRIPTORS = 1024
JSON = {"Content-Type": "application/json"}
SDP = {"Content-Type": "application/sdp"}
FULL = {"server_full", "uploads_full", "portraits_full", "too_many_offers"}
NUMBERS = ("0", "1", "127", "255", "65536", "4294967296", "-1", "1e9", "")
Answers = Counter[str]


# The attackers


async def slow(url: str, seconds: float, rng: random.Random) -> Answers:
    """Clients that dribble."""
    _, port = _address(url)
    head = b"POST /api/offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    ended: Answers = Counter()

    async def dribble(whole: bytes) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(whole)
                reading = asyncio.ensure_future(reader.read(4096))
                while not reading.done():
                    writer.write(b"x")
                    await asyncio.sleep(1)
                answer = reading.result()
                ended[answer[9:12].decode() or "hung up"] += 1
                writer.close()

    beginnings = (head + b"X-A: ", head + b"Content-Length: 9999\r\n\r\n{")
    tasks = [asyncio.ensure_future(dribble(beginnings[i % 2])) for i in range(200)]
    await asyncio.sleep(seconds)
    await _cancel(tasks)
    return ended


async def idle(url: str, seconds: float, rng: random.Random) -> Answers:
    """Sockets that say nothing."""
    _, port = _address(url)
    ended: Answers = Counter()

    async def sit() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                await reader.read(1)
                ended["hung up"] += 1
                writer.close()
            await asyncio.sleep(1)

    tasks = [asyncio.ensure_future(sit()) for _ in range(2000)]
    await asyncio.sleep(seconds)
    await _cancel(tasks)
    return ended


async def uploads(url: str, seconds: float, rng: random.Random) -> Answers:
    """Pictures that are none, or too much."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (900, 900, 3), np.uint8))
    kinds = [_encoded(noise, kind) for kind in ("JPEG", "PNG", "TIFF", "WEBP")]
    promise = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # of a PNG: 3.6 gigapixels
    header = (
        struct.pack(">I", 13) + b"IHDR" + promise + struct.pack(">I", zlib.crc32(b"IHDR" + promise))
    )
    bodies = [b"\x89PNG\r\n\x1a\n" + header, bytes(11 * 1024 * 1024)]
    bodies += [data[: len(data) // 2] for data in kinds]
    bodies += [data[: len(data) // 2] + rng.randbytes(len(data) // 2) for data in kinds]

    async def upload(http: httpx.AsyncClient) -> httpx.Response:
        return await http.post(
            "/api/portraits", content=rng.choice(bodies), headers={"Content-Type": "image/png"}
        )

    return await _repeat(url, seconds, 0, upload)


async def offers(url: str, seconds: float, rng: random.Random, session: str, least: int) -> Answers:
    """Changed offers at every door that takes one; players want to see `session`."""
    real = await _real_offer()

    async def offer(http: httpx.AsyncClient) -> httpx.Response:
        sdp = changed(real, rng)
        door = rng.choice(("offer", "smallwebrtc", "whep", "whip", "calls"))
        if door in ("offer", "smallwebrtc"):
            body = {"sdp": sdp, "type": "offer"} | ({"pc_id": "x"} if door != "offer" else {})
            answer = await http.post("/api/offer", json=body)
            if answer.status_code == 200:
                await http.delete(f"/api/sessions/{answer.json()['session_id']}")
            return answer
        path = {"whep": f"/whep/{session}", "whip": "/whip", "calls": "/v1/realtime/calls"}[door]
        answer = await http.post(path, content=sdp.encode(), headers=SDP)
        if answer.status_code == 201:
            at = answer.headers["Location"]
            await (http.post(f"{at}/hangup") if door == "calls" else http.delete(at))
        return answer

    return await _repeat(url, seconds, least, offer)


def changed(sdp: str, rng: random.Random) -> str:
    """An offer with one to four of its lines lost, doubled, exchanged, cut or changed."""
    lines = sdp.splitlines()
    for _ in range(rng.randint(1, 4)):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        line = lines[at]
        place = rng.randint(0, len(line))
        new = {
            0: line[:place],
            1: lines[other],
            2: line[:place] + chr(rng.choice((0, 32, 47, 58, 233, 0x1F600))) + line[place + 1 :],
            3: re.sub(r"\d+", rng.choice(NUMBERS), line, count=1),
            4: " ".join(rng.sample(words := line.split(" "), len(words))),
            5: line.replace(":", " ", 1),
        }
        lines[at] = new[rng.randrange(len(new))]
        if rng.random() < 0.2:
            lines.insert(at, line)
    return "\r\n".join(lines) + "\r\n"


ATTACKS: dict[str, Callable[..., Awaitable[Answers]]] = {
    "slow": slow,
    "idle": idle,
    "uploads": uploads,
    "offers": offers,
}


def _encoded(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


async def _cancel(tasks: list[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _real_offer() -> str:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        pc.createDataChannel("control")
        pc.addTransceiver("video", direction="recvonly")
        pc.addTransceiver("audio", direction="sendrecv")
        await pc.setLocalDescription(await pc.createOffer())
        return str(pc.localDescription.sdp)
    finally:
        await pc.close()


async def _repeat(
    url: str,
    seconds: float,
    least: int,
    ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]],
) -> Answers:
    """Ask four at a time, so long and at least so often."""
    answers: Answers = Counter()
    end = time.monotonic() + seconds

    async def again(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end or answers.total() - answers["full"] < least:
            try:
                answer = await ask(http)
            except httpx.HTTPError as error:
                answers[type(error).__name__] += 1
                continue
            full = answer.status_code >= 400 and answer.json()["error"]["code"] in FULL
            answers["full" if full else str(answer.status_code)] += 1

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        await asyncio.gather(*(again(http) for _ in range(4)))
    return answers


# What the viewer and the operator see


async def ask_health(url: str, slowest: list[float]) -> None:
    """Ask for `/healthz` ten times a second, each over a connection of its own."""
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        while True:
            asked = time.monotonic()
            (await http.get("/healthz", headers={"Connection": "close"})).raise_for_status()
            slowest.append(time.monotonic() - asked)
            await asyncio.sleep(0.1)


async def phase(
    name: str, server: ServerProcess, viewer: Viewer, options: argparse.Namespace
) -> dict[str, Any]:
    """One attack, and what came of it."""
    health: list[float] = []
    asking = asyncio.ensure_future(ask_health(server.url, health))
    first, began = len(viewer.shown), time.monotonic()
    answers: dict[str, int] = {}
    if name.startswith("nothing"):
        await asyncio.sleep(options.seconds)
    else:
        command = [sys.executable, "-m", "benchmarks.siege", "--attack", name, "--url", server.url]
        command += ["--seconds", str(options.seconds), "--offers", str(options.offers)]
        command += ["--session", str(viewer.session_id)]
        running = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await running.communicate()
        answers = json.loads(out)
    lasted = time.monotonic() - began
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    shown = np.array([began, *viewer.shown[first:], time.monotonic()])
    return {
        "attack": name,
        "seconds": round(lasted, 1),
        "fps": round((len(viewer.shown) - first) / lasted, 1),
        "freeze_s": round(float(np.diff(shown).max()), 2),
        "healthz_s": round(max(health), 2),
        "memory_mib": round(resident_mib(server.pid), 1),
        "answers": answers,
    }


async def besiege(options: argparse.Namespace) -> dict[str, Any]:
    """All attacks in turn on one server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        os.environ |= {
            "PORTRAITTALK__OFFERS_PER_ADDRESS": "50",  # all attackers have one address
            "PORTRAITTALK__CAPACITY": "8",  # who was refused for want of places would show nothing
        }
        with ServerProcess(log, tuple(options.server_command)) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
            viewer = Viewer(server.url)
            try:
                await viewer.connect()
                await asyncio.sleep(3)
                names = ("nothing, before", *ATTACKS, "nothing, after")
                rows = [await phase(name, server, viewer, options) for name in names]
            finally:
                await viewer.close()
        lines = len(log.read_text().splitlines())
    return {"phases": rows, "log_lines": lines}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.siege",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="for each attack (20)")
    parser.add_argument("--offers", type=int, default=1000, help="changed ones at least (1000)")
    parser.add_argument(
        "--server-command",
        type=shlex.split,
        default=list(SERVE),
        help="program to start; its own server by default",
    )
    parser.add_argument("--out", type=Path, help="file for the JSON line")
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--session", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print a table, then one JSON line."""
    options = arguments()
    if options.attack:
        more = {"session": options.session, "least": options.offers}
        least = more if options.attack == "offers" else {}
        attack = ATTACKS[options.attack](options.url, options.seconds, random.Random(1), **least)
        print(json.dumps(asyncio.run(attack)))  # type: ignore[arg-type]
        return
    about = describe()
    print_header("siege: one live viewer while others attack", about)
    result = asyncio.run(besiege(options))
    print(f"{'attack':<18}{'fps':>6}{'freeze':>8}{'/healthz':>10}{'memory':>10}  answers")
    for row in result["phases"]:
        print(
            f"{row['attack']:<18}{row['fps']:6.1f}{row['freeze_s']:6.2f} s"
            f"{row['healthz_s']:8.2f} s{row['memory_mib']:6.0f} MiB  {row['answers']}"
        )
    print(f"{result['log_lines']} lines in the log")
    print_json({"benchmark": "siege", **result, **about}, options.out)


if __name__ == "__main__":
    main()
