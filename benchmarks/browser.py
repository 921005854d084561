"""Chromium for end-to-end tests and benchmarks: headless, loopback only, a wav file as microphone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page

from server.evaluation.chromium import run_chromium

# Keeps a list of the page's peer connections, so that a measurement can ask them for their figures.
WATCH_CONNECTIONS = """
window.__connections = [];
window.RTCPeerConnection = class extends window.RTCPeerConnection {
  constructor(...args) { super(...args); window.__connections.push(this); }
};
"""


@contextmanager
def launch(microphone: Path | None = None, *, extra: tuple[str, ...] = ()) -> Iterator[Browser]:
    """Run Chromium until the block ends.

    Args:
        microphone: wav file the fake microphone plays in a loop (mono, 16 bit); None beeps.
        extra: more command line switches.
    """
    flags = list(extra)
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}")
    with run_chromium(*flags) as browser:
        yield browser


def new_page(browser: Browser, *, width: int = 1280, height: int = 860, dark: bool = False) -> Page:
    """A page in its own context, with the microphone granted and its connections watched."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        permissions=["microphone"],
    )
    context.add_init_script(WATCH_CONNECTIONS)
    return context.new_page()
