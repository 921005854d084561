"""A viewer without a browser: connects, sends a sound file, measures and records what comes back.

    python -m client_example.headless http://localhost:8080 --audio speech.wav --seconds 10

The last line of its output is one JSON object with the figures. As a module: `await view(...)`.
aiortc delivers a video frame only when the next one begins, so a frame arrives here about 40 ms later
than in a browser.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import aioice.ice
import av
import numpy as np
import typer
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

RATE_HZ = 48_000
PACKET = 960
_host_addresses = aioice.ice.get_host_addresses


@dataclass
class Report:
    """What a viewer received."""

    connected_s: float | None = None
    first_frame_s: float | None = None
    frames: int = 0
    fps: float = 0.0
    longest_gap_s: float = 0.0
    sound_packets: int = 0
    width: int = 0
    height: int = 0
    server_stats: list[dict[str, Any]] = field(default_factory=list)
    state: str = "new"


class FileMicrophone(MediaStreamTrack):
    """Sends a sound file in real time, then silence; with `loop`, it repeats the file."""

    kind = "audio"

    def __init__(self, path: Path, *, loop: bool = False) -> None:
        super().__init__()
        self._pcm = read_sound(path)
        self._loop = loop
        self._position = 0
        self._began: float | None = None

    async def recv(self) -> av.AudioFrame:
        """Return the next 20 ms when they are due; raises MediaStreamError once stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        if self._began is None:
            self._began = time.monotonic()
        due = self._began + self._position / RATE_HZ
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        at = self._position % len(self._pcm) if self._loop else self._position
        pcm = np.zeros(PACKET, dtype=np.int16)
        part = self._pcm[at : at + PACKET]
        pcm[: len(part)] = part
        frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, self._position
        frame.time_base = Fraction(1, RATE_HZ)
        self._position += PACKET
        return frame


def read_sound(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Read any sound file as mono (N,) int16 at 48 kHz."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    with av.open(str(path)) as file:
        parts = [
            out.to_ndarray()[0]
            for frame in (*file.decode(audio=0), None)
            for out in resampler.resample(frame)
        ]
    return np.concatenate(parts)


class Recorder:
    """Writes the received media to an mp4 file, timed by their arrival.

    The file begins with the first frame; sound before it is left out.
    """

    def __init__(self, path: Path) -> None:
        self._file = av.open(str(path), "w")
        self._video: Any = None
        self._sound: Any = None
        self._to_mono = av.AudioResampler(format="fltp", layout="mono", rate=RATE_HZ)
        self._began = 0.0
        self._samples: int | None = None
        self._last_ms = -1

    def frame(self, frame: av.VideoFrame) -> None:
        """Write one frame."""
        if self._video is None:
            self._begin(frame.width, frame.height)
        elapsed_ms = round((time.monotonic() - self._began) * 1000)
        self._last_ms = max(self._last_ms + 1, elapsed_ms)
        copy = frame.reformat(format="yuv420p")
        copy.pts, copy.time_base = self._last_ms, Fraction(1, 1000)
        self._file.mux(self._video.encode(copy))

    def sound(self, frame: av.AudioFrame) -> None:
        """Write one packet of sound."""
        if self._video is None:
            return
        if self._samples is None:
            self._samples = round((time.monotonic() - self._began) * RATE_HZ)
        for part in self._to_mono.resample(frame):
            part.pts, part.time_base = self._samples, Fraction(1, RATE_HZ)
            self._samples += part.samples
            self._file.mux(self._sound.encode(part))

    def close(self) -> None:
        """Finish the file; without a frame it is empty."""
        if self._video is not None:
            for stream in (self._video, self._sound):
                self._file.mux(stream.encode(None))
        self._file.close()

    def _begin(self, width: int, height: int) -> None:
        """Add both streams: the file's header is written with the first packet of either."""
        self._began = time.monotonic()
        options = {"preset": "veryfast", "tune": "zerolatency"}
        self._video = self._file.add_stream("libx264", rate=25, options=options)
        self._video.width, self._video.height = width, height
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = Fraction(1, 1000)
        self._sound = self._file.add_stream("aac", rate=RATE_HZ, layout="mono")


def allow_loopback() -> None:
    """Let connections of this process use 127.0.0.1, which aioice leaves out."""
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: sorted(
        {*_host_addresses(use_ipv4, use_ipv6), "127.0.0.1"}
    )


class Viewer:
    """`on_frame`, `on_sound` get all that is decoded; `asked`: `session_id` or `resume`; `url` may end in `?token=`."""

    def __init__(self, url: str, *, portrait: str = "default", **asked: str) -> None:
        self.url, _, self._token = url.replace("/?", "?").rstrip("/").partition("?token=")
        self._asked = {"portrait_id": portrait, **asked}
        self.report = Report()
        self.session_id: str | None = None
        self.token: str | None = None  # to come back with
        self.events: list[dict[str, Any]] = []  # what the server told
        self.on_frame: list[Any] = []
        self.on_sound: list[Any] = []
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.control = self.pc.createDataChannel("control")
        allow_loopback()
        self._tasks: list[asyncio.Task[None]] = []
        self._began = time.monotonic()
        self.shown: list[float] = []  # when each frame came, monotonic

    async def connect(self, microphone: MediaStreamTrack | None = None) -> None:
        """Make the offer, apply the answer; media flows soon after.

        Raises:
            RuntimeError: the server refuses; the message is the server's.
        """
        self.pc.addTransceiver("video", direction="recvonly")
        self.pc.addTransceiver(microphone or "audio", direction="sendrecv")
        self.pc.on("track", self._on_track)
        self.pc.on("connectionstatechange", self._on_state)
        self.control.on("message", self._on_message)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        offer = self.pc.localDescription
        body = {"sdp": offer.sdp, "type": offer.type, **self._asked}
        answer = await asyncio.to_thread(post_json, f"{self.url}/api/offer", body, self._token)
        self.session_id, self.token = answer["session_id"], answer["resume"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))

    async def close(self) -> None:
        """Close the connection."""
        await self.pc.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def finish(self) -> Report:
        """Compute the figures of the frames received so far."""
        self.report.frames = len(self.shown)
        self.report.server_stats = [e for e in self.events if e["type"] == "stats"]
        if len(gaps := np.diff(self.shown)):
            self.report.fps = round(1 / float(gaps.mean()), 2)
            self.report.longest_gap_s = round(float(gaps.max()), 3)
        return self.report

    def _on_state(self) -> None:
        self.report.state = self.pc.connectionState
        if self.pc.connectionState == "connected" and self.report.connected_s is None:
            self.report.connected_s = round(time.monotonic() - self._began, 3)

    def _on_message(self, message: str) -> None:
        self.events.append(json.loads(message))

    def _on_track(self, track: MediaStreamTrack) -> None:
        take = self._frame if track.kind == "video" else self._sound
        self._tasks.append(asyncio.ensure_future(self._follow(track, take)))

    async def _follow(self, track: MediaStreamTrack, take: Callable[[Any], None]) -> None:
        while True:
            try:
                take(await track.recv())
            except MediaStreamError:
                return

    def _frame(self, frame: av.VideoFrame) -> None:
        now = time.monotonic()
        if not self.shown:
            self.report.first_frame_s = round(now - self._began, 3)
            self.report.width, self.report.height = frame.width, frame.height
        self.shown.append(now)
        for call in self.on_frame:
            call(frame)

    def _sound(self, frame: av.AudioFrame) -> None:
        self.report.sound_packets += 1
        for call in self.on_sound:
            call(frame)


def post_json(url: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    """POST JSON and return the JSON answer; raises RuntimeError with the server's message."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(f"HTTP {error.code}: {error.read().decode()}") from None


async def view(
    url: str,
    *,
    audio: Path | None = None,
    seconds: float = 10.0,
    portrait: str = "default",
    record: Path | None = None,
    loop: bool = True,
) -> Report:
    """Watch for `seconds` and return the figures."""
    viewer = Viewer(url, portrait=portrait)
    recorder = Recorder(record) if record else None
    if recorder:
        viewer.on_frame.append(recorder.frame)
        viewer.on_sound.append(recorder.sound)
    try:
        await viewer.connect(FileMicrophone(audio, loop=loop) if audio else None)
        await asyncio.sleep(seconds)
        return viewer.finish()
    finally:
        await viewer.close()
        if recorder:
            recorder.close()


def main(
    url: Annotated[str, typer.Argument(help="Address the server printed.")],
    audio: Annotated[Path | None, typer.Option(help="Sound file to send.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to watch.")] = 10.0,
    portrait: Annotated[str, typer.Option(help="Portrait id.")] = "default",
    record: Annotated[Path | None, typer.Option(help="Write an mp4 of what came back.")] = None,
) -> None:
    """Watch a talking portrait without a browser; the last line is JSON."""
    try:
        report = asyncio.run(
            view(url, audio=audio, seconds=seconds, portrait=portrait, record=record)
        )
    except (RuntimeError, OSError) as error:
        typer.echo(f"headless: {error}", err=True)
        raise typer.Exit(1) from None
    for stats in report.server_stats:
        typer.echo(f"{stats['fps']:5.1f} fps  dropped {stats['dropped']}  {stats['legs_ms']}")
    typer.echo(json.dumps(asdict(report)))


if __name__ == "__main__":
    typer.run(main)
