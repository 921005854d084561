"""Chromium for end-to-end tests and benchmarks: headless, loopback only, a wav file as microphone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter",
    "--allow-loopback-in-peer-connection",  # without it there are no ICE candidates on 127.0.0.1
)

# Keeps a list of the page's peer connections, so that a measurement can ask them for their figures.
WATCH_CONNECTIONS = """
window.__connections = [];
window.RTCPeerConnection = class extends window.RTCPeerConnection {
  constructor(...args) { super(...args); window.__connections.push(this); }
};
"""


class ChromiumMissing(Exception):
    """No Chromium on this machine; the message says how to get one."""


def find_chromium() -> Path:
    """Path of an installed Chromium; `CHROMIUM` in the environment names another one.

    Raises:
        ChromiumMissing: none of the usual names is on the PATH.
    """
    named = os.environ.get("CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if not found or not Path(found).exists():
        raise ChromiumMissing(
            f"Chromium is needed ({', '.join(NAMES)}), found {named or 'none'}; install it, on Debian "
            "with `apt-get install chromium`, or name its path in the environment variable CHROMIUM"
        )
    return Path(found)


@contextmanager
def launch(microphone: Path | None = None, *, extra: tuple[str, ...] = ()) -> Iterator[Browser]:
    """Run Chromium until the block ends.

    Args:
        microphone: wav file the fake microphone plays in a loop (mono, 16 bit); None beeps.
        extra: more command line switches.
    """
    flags = [*FLAGS, *extra]
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser, *, width: int = 1280, height: int = 860, dark: bool = False) -> Page:
    """A page in its own context, with the microphone granted and its connections watched."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        permissions=["microphone"],
    )
    context.add_init_script(WATCH_CONNECTIONS)
    return context.new_page()
