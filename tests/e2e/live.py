"""What the end-to-end tests ask of a live page: waiting, sound energy, moving pictures, sessions."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from benchmarks.beeps import write_wav
from benchmarks.server_process import ServerProcess

# Mean absolute difference of two 64 x 64 grey copies of the video, `ms` apart.
MOTION = """async (ms) => {
  const video = document.getElementById("video");
  const pen = new OffscreenCanvas(64, 64).getContext("2d", { willReadFrequently: true });
  const grab = () => { pen.drawImage(video, 0, 0, 64, 64); return pen.getImageData(0, 0, 64, 64).data; };
  const first = grab();
  await new Promise((done) => setTimeout(done, ms));
  const second = grab();
  let sum = 0;
  for (let i = 0; i < first.length; i += 4) sum += Math.abs(first[i + 1] - second[i + 1]);
  return sum / (64 * 64);
}"""

# Energy of the sound that is played, summed since the connection began (getStats).
ENERGY = """async () => {
  const pc = window.__connections.at(-1);
  for (const stat of (await pc.getStats()).values())
    if (stat.type === "inbound-rtp" && stat.kind === "audio") return stat.totalAudioEnergy ?? 0;
  return 0;
}"""


def write_voice(path: Path, seconds: float) -> Path:
    """A speech-like sound: a buzz of 140 Hz that opens and closes four times a second."""
    rate = 48_000
    t = np.arange(int(rate * seconds)) / rate
    buzz = np.sum([np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12)], axis=0)
    pcm = 0.25 * buzz * np.clip(np.sin(2 * np.pi * 4 * t), 0, 1)
    write_wav(path, pcm, rate)
    return path


def wait_until(page: Page, what: str, holds: Callable[[], bool], timeout_s: float) -> None:
    """Poll `holds` and fail, naming `what`, when it does not come true in time.

    It waits in the page's own way, so that events and routes of the page go on meanwhile.
    """
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        page.wait_for_timeout(50)


def wait_live(page: Page, timeout_s: float = 20) -> None:
    """Wait until the portrait's picture is shown and connected."""
    page.wait_for_selector("#pill[data-state=live]", timeout=timeout_s * 1000)
    page.wait_for_selector(".stage.playing", timeout=timeout_s * 1000)


def sound_energy(page: Page) -> float:
    """Energy of the played sound so far."""
    return float(page.evaluate(ENERGY))


def hears_sound(page: Page, during_s: float = 1.0, least: float = 1e-5) -> bool:
    """Whether the page plays sound during the next seconds; a muted player has no energy."""
    before = sound_energy(page)
    page.wait_for_timeout(during_s * 1000)
    return sound_energy(page) - before > least


def sessions(server: ServerProcess) -> int:
    """Sessions the server holds now."""
    return int(server.get("/healthz")["sessions"])


def default_portrait(server: ServerProcess) -> bytes:
    """JPEG of the bundled portrait."""
    with urllib.request.urlopen(f"{server.url}/api/portraits/default/image", timeout=10) as answer:
        image: bytes = answer.read()
    return image
