"""Minutes of an assistant's speech through two doors in turn: does sound drift from picture, does memory grow?

Starts the server in test mode; a viewer without a browser watches one session, which says beeps for ever:
one utterance over the WebSocket, the next as a file over HTTP. For each beep the frame that shows it and its sound
are received: their distance is the skew. The server's own memory is read once a second.

  skew        sound after picture as received, ms: median, p95 of the magnitude, and its slope over
              the run. A decoder gives a frame when the next one begins: about one frame is in it
  colour      mean L*, a*, b* of the face in a frame every ten seconds: how far it goes in an hour
  identity    likeness of those faces to the first minute's, by the bundled encoder: its slope an hour
  memory      the server's private memory, MiB: each minute, and its slope an hour after the first five,
              in which caches and the logs of test mode fill

Examples:
  python -m benchmarks.soak --minutes 60 --out benchmarks/results/soak.json
  python -m benchmarks.soak --minutes 1 --server-command "python -m tests.server.fake_server"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import psutil
import websockets
from numpy.typing import NDArray

from benchmarks.beeps import BEEP_HZ, BEEP_S, FLAG_BEEP
from benchmarks.environment import describe, print_header, print_json
from benchmarks.server_process import (
    ServerProcess,
    add_server_arguments,
    describe_server,
    measured_server,
)
from benchmarks.voice import wav
from client_example.headless import Viewer
from engine.backends import Graph, GraphSpec, load_backend
from engine.config import EngineConfig
from engine.face.detector import DETECTOR, LANDMARKS, FaceReader
from engine.face.head_mask import head_mask
from engine.render.lab import to_lab
from engine.render.specs import ENROLL
from engine.render.tiny_embedding import TinyEmbedder
from engine.types import RgbImage
from server.live import frame_code

RATE_HZ = 48_000
UTTERANCE_S = 8.0
SETTLED_S = 300.0  # memory grows while caches and the bounded logs of test mode fill
LOUD = 0.1
QUIET_S = 0.2
LOOK_EVERY_S = 10.0
FIRST_LOOKS = 6  # whose mean the others are compared with


@dataclass
class Received:
    """When beeps were heard and seen, monotonic seconds."""

    heard: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    frames: int = 0
    looks: list[tuple[float, RgbImage]] = field(default_factory=list)  # a frame every ten seconds
    _loud_at: float = -1.0
    _last_id: int = 0

    def frame(self, frame: av.VideoFrame) -> None:
        """Note a frame whose code says that it shows a beep."""
        now = time.monotonic()
        self.frames += 1
        rgb = frame.to_ndarray(format="rgb24")
        if not self.looks or now - self.looks[-1][0] >= LOOK_EVERY_S:
            self.looks.append((now, rgb))
        code = frame_code.read(rgb)
        if code is not None and code.flags & FLAG_BEEP and code.id != self._last_id:
            self._last_id = code.id
            self.seen.append(now)

    def sound(self, frame: av.AudioFrame) -> None:
        """Note the begin of a beep in a packet of sound."""
        now = time.monotonic()
        pcm = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0] / 32768
        loud = np.flatnonzero(np.abs(pcm) > LOUD)
        if len(loud) == 0:
            return
        if now - self._loud_at > QUIET_S:
            self.heard.append(now + loud[0] / RATE_HZ)
        self._loud_at = now


def beeps(seed: int) -> NDArray[np.int16]:
    """An utterance (N,) of bursts at random distances of 1.0 to 1.2 s."""
    rng, pcm, at = np.random.default_rng(seed), np.zeros(int(UTTERANCE_S * RATE_HZ)), 0.3
    burst = 0.5 * np.sin(2 * np.pi * BEEP_HZ * np.arange(int(BEEP_S * RATE_HZ)) / RATE_HZ)
    while at + 0.5 < UTTERANCE_S:
        begin = int(at * RATE_HZ)
        pcm[begin : begin + len(burst)] = burst
        at += rng.uniform(1.0, 1.2)
    return np.asarray(pcm * 32767, dtype=np.int16)


def skews(received: Received) -> NDArray[np.float64]:
    """Pairs (time, sound after picture) in s, (N, 2), of beeps that came both ways."""
    seen = np.array(received.seen)
    found = []
    for heard in received.heard:
        if len(seen):
            nearest = float(seen[np.argmin(np.abs(seen - heard))])
            if abs(heard - nearest) < 0.45:
                found.append((heard, heard - nearest))
    return np.array(found).reshape(-1, 2)


async def speak(url: str, session: str, until: float) -> int:
    """Say utterances through both doors in turn; returns how many."""
    address = f"{url.replace('http', 'ws', 1)}/api/sessions/{session}/speech?rate_hz={RATE_HZ}"
    said = 0
    async with (
        websockets.connect(address, proxy=None) as socket,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        reading = asyncio.create_task(_drain(socket))
        while time.monotonic() < until:
            pcm = beeps(said)
            if said % 2:
                answer = await http.post(f"/api/sessions/{session}/say", content=wav(pcm, RATE_HZ))
                answer.raise_for_status()
            else:
                await socket.send(json.dumps({"type": "begin"}))
                await socket.send(pcm.tobytes())
                await socket.send(json.dumps({"type": "end"}))
            said += 1
            await asyncio.sleep(UTTERANCE_S)
        reading.cancel()
    return said


async def _drain(socket: websockets.ClientConnection) -> None:
    async for _ in socket:
        pass


async def watch_memory(pid: int, until: float) -> NDArray[np.float64]:
    """Pairs (seconds, MiB) of a process's private memory, (N, 2)."""
    process, began, rows = psutil.Process(pid), time.monotonic(), []
    while time.monotonic() < until:
        rows.append((time.monotonic() - began, process.memory_full_info().uss / 2**20))
        await asyncio.sleep(1.0)
    return np.array(rows)


def slope(rows: NDArray[np.float64]) -> float | None:
    """Of the second column over the first, (N, 2), by the median of pairwise slopes; None: too few."""
    if len(rows) < 10:
        return None
    half = len(rows) // 2
    first, second = rows[:half], rows[half : 2 * half]
    return float(np.median((second[:, 1] - first[:, 1]) / (second[:, 0] - first[:, 0])))


def looks_drift(looks: list[tuple[float, RgbImage]]) -> dict[str, float | None]:
    """How far the colour and the likeness of received frames go in an hour; None: too few of them."""
    config = EngineConfig()
    runtime = load_backend(config.backend, threads=1)

    def load(spec: GraphSpec) -> Graph:
        return runtime.load(spec, config.weights / f"{spec.name}.onnx")

    reader, embed = FaceReader(load(DETECTOR), load(LANDMARKS)), TinyEmbedder(load(ENROLL))
    colours, faces = [], []
    for at, rgb in looks:
        found = reader.faces(rgb)
        if found:
            height, width = rgb.shape[:2]
            side = max(height, width)
            mask = head_mask(found[0].landmarks / side, side)[:height, :width] > 0.5
            face = rgb[mask]
            colours.append([at, *to_lab(face / np.float32(255)).mean(0)])
            faces.append((at, embed(rgb, found[0].landmarks)))
    if len(faces) <= FIRST_LOOKS:
        return {"colour_an_hour": None, "identity": None, "identity_an_hour": None}
    first = np.mean([face for _, face in faces[:FIRST_LOOKS]], 0)
    first /= np.linalg.norm(first)
    alike = np.array([(at, float(face @ first)) for at, face in faces])
    table = np.array(colours)
    slopes = [slope(table[:, [0, i]]) for i in (1, 2, 3)]
    known = [s for s in slopes if s is not None]
    drift = slope(alike)
    return {
        "colour_an_hour": round(3600 * float(np.linalg.norm(known)), 2) if known else None,
        "identity": round(float(alike[FIRST_LOOKS:, 1].mean()), 4),
        "identity_an_hour": None if drift is None else round(3600 * drift, 4),
    }


async def run(server: ServerProcess, minutes: float) -> dict[str, Any]:
    """Watch, speak and measure."""
    viewer, received = Viewer(server.url), Received()
    viewer.on_frame.append(received.frame)
    viewer.on_sound.append(received.sound)
    await viewer.connect(None)
    await asyncio.sleep(3)
    assert viewer.session_id is not None
    began, received.frames = time.monotonic(), 0
    until = began + 60 * minutes
    said, memory = await asyncio.gather(
        speak(server.url, viewer.session_id, until), watch_memory(server.pid, until)
    )
    await viewer.close()
    pairs = skews(received)
    if not len(pairs):
        raise SystemExit("no beep came both ways: the machine is too busy, or nothing is heard")
    centred = pairs[:, 1] - np.median(pairs[:, 1])
    drift, grown = slope(pairs), slope(memory[memory[:, 0] > min(SETTLED_S, 20 * minutes)])
    return {
        "minutes": minutes,
        "utterances": said,
        "frames_a_second": round(received.frames / (60 * minutes), 2),
        "beeps_heard": len(received.heard),
        "beeps_paired": len(pairs),
        "skew_ms_median": round(1000 * float(np.median(pairs[:, 1])), 1),
        "skew_ms_p95_about_median": round(1000 * float(np.percentile(np.abs(centred), 95)), 1),
        "skew_ms_max_about_median": round(1000 * float(np.abs(centred).max()), 1),
        "skew_ms_an_hour": None if drift is None else round(1000 * 3600 * drift, 1),
        **looks_drift(received.looks),
        "memory_mib_by_minute": [round(float(row), 1) for row in memory[::60, 1]],
        "memory_mib_an_hour": None if grown is None else round(3600 * grown, 2),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10, help="length (10)")
    add_server_arguments(parser)
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    options = parser.parse_args()
    about = describe()
    print_header("soak: speech through two doors in turn", about)
    with tempfile.TemporaryDirectory() as name:
        with measured_server(Path(name) / "server.txt", options) as server:
            figures = asyncio.run(run(server, options.minutes))
    for key, value in figures.items():
        print(f"  {key:28} {value}")
    result = {"benchmark": "soak", **figures, **about, **describe_server(options)}
    print_json(result, options.out)


if __name__ == "__main__":
    main()
