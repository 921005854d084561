"""Chromium as the receiver that is measured: found, and run without a window on loopback alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import BackendUnavailable
from server.extras import extra

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


class ChromiumMissing(BackendUnavailable):
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
def run_chromium(*more: str) -> Iterator[Browser]:
    """Run Chromium, with `more` switches, until the block ends.

    Raises:
        BackendUnavailable: there is no Chromium, or no Playwright to drive it.
    """
    with extra("evaluate"):
        from playwright.sync_api import sync_playwright
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *more])
        try:
            yield browser
        finally:
            browser.close()
