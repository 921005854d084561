"""A clip's video as it is delivered: received in Chromium over WebRTC, after the codec, frame by frame.

A server of its own is told the clip's sound as an assistant's speech. Every frame that leaves carries
the frame code on a strip above the portrait, which is cut off again: by it each received picture finds
the place of its sound. A frame that was not shown is stood in for by the one before it.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.config import HOP_SAMPLES, SAMPLE_RATE_HZ
from engine.errors import AvatarError, DataError
from engine.types import Pcm, RgbImage
from server.live import frame_code

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SERVE = (sys.executable, "-m", "server.cli", "serve", "--frame-code")
POSED = (sys.executable, "-m", "server.evaluation.posed_server")
RECORDER = Path(__file__).with_name("record.js")
START_S, SETTLE_S, AFTER_S = 300.0, 2.0, 1.5  # for the server; before speech and after it
AT_ONCE = 20  # pictures fetched in one message
PUSH = SAMPLE_RATE_HZ // 10  # samples of speech in one message
FASTER = 10.0  # than it is spoken


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came: frames (T, H, W, 3) in the order of the sound, and how."""

    frames: list[RgbImage]
    latency_ms: (
        float  # from the first sound that was sent to the frame of it, median over all frames
    )
    held: int  # frames for which none came


def deliver(
    browser: Browser,
    portrait: RgbImage,
    pcm: Pcm,
    folder: Path,
    command: tuple[str, ...] = SERVE,
) -> Delivered:
    """Have a server say 16 kHz sound (N,) through a portrait (H, W, 3), and receive it in Chromium.

    Args:
        folder: for the log of the server.
        command: the server, which takes `--port N` and draws the frame code.

    Raises:
        AvatarError: the server does not come up.
        DataError: nothing of the speech was shown, or the portrait is refused.
    """
    with _server(command, folder / "server.txt") as url:
        name = _upload(url, with_strip(portrait))
        page = browser.new_page()
        page.add_init_script(path=RECORDER)
        page.goto(f"{url}/healthz")
        session, sent, seen = _say(url, name, pcm, page)
        page.close()
        with urllib.request.urlopen(f"{url}/api/test/frames", timeout=10) as answer:
            left = [row for row in json.load(answer)["frames"] if row["session"] == session]
    return arrange(seen, left, sent, portrait.shape[:2], -(-len(pcm) // HOP_SAMPLES))


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture as it was received."""

    at: float  # Unix time
    rgb: RgbImage


def arrange(
    seen: list[Seen], left: list[dict[str, Any]], sent: float, size: tuple[int, int], count: int
) -> Delivered:
    """Put received pictures in the order of the speech by their codes, one for each of `count` frames.

    Args:
        left: what the server noted of each frame that left: number, place on the line of sound, spoken.
        sent: when the first sound left, Unix time.
        size: height and width of the portrait.

    Raises:
        DataError: nothing of the speech was shown.
    """
    spoken = [row["place"] for row in left if row["spoken"] and row["place"] is not None]
    if not spoken:
        raise DataError("live: no frame of the speech left the server")
    begin, frame = min(spoken), 48_000 // 25
    places = {row["number"]: row["place"] for row in left if row["place"] is not None}
    shown: dict[int, Seen] = {}
    for picture in seen:
        code = frame_code.read(picture.rgb)
        if code is None or code.counter not in places:
            continue
        index = round((places[code.counter] - begin) / frame)
        if -25 <= index < count:
            shown.setdefault(index, picture)
    own = [index for index in shown if index >= 0]
    if not own:
        raise DataError("live: no frame of the speech was shown")
    frames, last = [], shown[max((i for i in shown if i <= 0), default=min(own))]
    for index in range(count):
        last = shown.get(index, last)
        frames.append(without_strip(last.rgb, size))
    late = [1000 * (shown[i].at - sent) - 40 * i for i in own]
    return Delivered(frames, float(np.median(late)), count - len(own))


def strip_height(width: int) -> int:
    """Rows that the frame code takes above a portrait of that width; even."""
    return -(-frame_code.ROWS * (width // frame_code.COLUMNS) // 2) * 2


def with_strip(portrait: RgbImage) -> RgbImage:
    """A portrait (H, W, 3) with room for the frame code above it: its first row, again and again."""
    rows = strip_height(portrait.shape[1])
    return np.concatenate([np.repeat(portrait[:1], rows, 0), portrait])


def without_strip(rgb: RgbImage, size: tuple[int, int]) -> RgbImage:
    """What is below the strip of a received picture (h, w, 3), at height and width `size`."""
    rows = round(strip_height(size[1]) * rgb.shape[1] / size[1])
    below = rgb[rows:]
    if below.shape[:2] == size:
        return below
    image = Image.fromarray(below).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _say(url: str, portrait: str, pcm: Pcm, page: Page) -> tuple[str, float, list[Seen]]:
    """Speak in a new session while the page receives it: its id, when speech was sent, the pictures."""
    from websockets.sync.client import connect

    address = (
        f"{url.replace('http', 'ws', 1)}/api/speech?rate_hz={SAMPLE_RATE_HZ}&portrait_id={portrait}"
    )
    samples = (np.clip(pcm, -1, 1) * 32767).astype("<i2")
    samples[0] = samples[0] or 1  # where a given pose begins
    with connect(address, proxy=None) as speech:
        session = str(json.loads(speech.recv())["session_id"])
        page.evaluate("id => window.__record.join(id)", session)
        page.wait_for_function("() => window.__record.count() > 10", timeout=60_000)
        page.wait_for_timeout(1000 * SETTLE_S)
        page.evaluate("() => window.__record.forget()")
        speech.send(json.dumps({"type": "begin"}))
        sent = time.time()
        for at in range(0, len(samples), PUSH):
            speech.send(samples[at : at + PUSH].tobytes())
            page.wait_for_timeout(1000 * PUSH / SAMPLE_RATE_HZ / FASTER)
        speech.send(json.dumps({"type": "end"}))
        left = sent + len(samples) / SAMPLE_RATE_HZ + AFTER_S - time.time()
        page.wait_for_timeout(1000 * max(0.0, left))
        return session, sent, list(_fetch(page))


def _fetch(page: Page) -> Iterator[Seen]:
    """Every picture that the page kept."""
    while rows := page.evaluate("most => window.__record.take(most)", AT_ONCE):
        for row in rows:
            if row["format"] != "I420":
                raise AvatarError(f"live: Chromium decodes to {row['format']}; only I420 is read")
            planes = np.frombuffer(base64.b64decode(row["planes"]), np.uint8)
            yield Seen(row["at"] / 1000, as_rgb(planes, row["height"], row["width"]))


def as_rgb(planes: NDArray[np.uint8], height: int, width: int) -> RgbImage:
    """Planes (3 H W / 2,) of BT.601 luma and chroma in television's range as a picture (H, W, 3)."""
    import av

    picture = av.VideoFrame.from_ndarray(planes.reshape(height * 3 // 2, width), format="yuv420p")
    return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)


def _upload(url: str, portrait: RgbImage) -> str:
    """Enrol a portrait (H, W, 3); its id."""
    file = io.BytesIO()
    Image.fromarray(portrait).save(file, "PNG")
    headers = {"Content-Type": "image/png"}
    request = urllib.request.Request(f"{url}/api/portraits", file.getvalue(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return str(json.load(answer)["id"])
    except urllib.error.HTTPError as error:
        with error:
            raise DataError(f"live: the portrait was refused: {error.read().decode()}") from None


@contextmanager
def _server(command: tuple[str, ...], log: Path) -> Iterator[str]:
    """Run a server until the block ends; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + START_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > until:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
                raise AvatarError(f"live: the server did not come up:\n{tail}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
