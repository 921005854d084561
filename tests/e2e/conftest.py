"""Chromium and a server process for the end-to-end tests; loopback only."""

from __future__ import annotations

import os
import re
import shlex
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from benchmarks.browser import ChromiumMissing, find_chromium, launch, new_page
from benchmarks.server_process import ROOT, SERVE, ServerProcess

FAKE = (SERVE[0], "-m", "tests.server.fake_server")
OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def server_command() -> tuple[str, ...]:
    """The real server once it has an engine and weights, else the one with a fake engine."""
    named = os.environ.get("PORTRAITTALK_SERVER")
    if named:
        return tuple(shlex.split(named))
    weights = list((ROOT / "engine" / "weights" / "tiny").glob("*.onnx"))
    return SERVE if weights and (ROOT / "engine" / "avatar.py").exists() else FAKE


def has_face_finder() -> bool:
    """Whether the server under test tells pictures with and without a face apart."""
    return server_command() == SERVE


def write_voice(path: Path, seconds: float) -> Path:
    """A speech-like sound: a buzz of 140 Hz that opens and closes four times a second."""
    rate = 48_000
    t = np.arange(int(rate * seconds)) / rate
    buzz = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12))
    pcm = 0.25 * buzz * np.clip(np.sin(2 * np.pi * 4 * t), 0, 1)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="session")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voice(tmp_path_factory.mktemp("sound") / "voice.wav", 4.0)


@pytest.fixture(scope="module")
def browser(voice: Path) -> Iterator[Browser]:
    try:
        find_chromium()
    except ChromiumMissing as missing:
        pytest.skip(str(missing))
    with launch(voice) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server") / "log.txt", server_command()) as running:
        yield running


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages and fails the test for every error they report that was not allowed."""
    opened: list[tuple[Page, list[str], str | None]] = []

    def open_one(
        url: str,
        *,
        width: int = 1280,
        height: int = 860,
        dark: bool = False,
        allow: str | None = None,
        script: str | None = None,
    ) -> Page:
        page = new_page(browser, width=width, height=height, dark=dark)
        page.set_default_timeout(20_000)
        errors: list[str] = []

        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                errors.append(f"console {message.type}: {message.text}")

        page.on("console", heard)
        page.on("pageerror", lambda error: errors.append(f"page error: {error}"))
        opened.append((page, errors, allow))
        if script:
            page.add_init_script(script)
        page.goto(url)
        return page

    yield open_one
    for page, _, _ in opened:
        page.context.close()
    wrong = [e for _, errors, allow in opened for e in errors if not (allow and re.search(allow, e))]
    assert not wrong, "\n".join(wrong)


def wait_live(page: Page, timeout_s: float = 20) -> None:
    """Wait until the portrait's picture moves on the page."""
    page.wait_for_selector("#pill[data-state=live]", timeout=timeout_s * 1000)
    page.wait_for_selector(".stage.playing", timeout=timeout_s * 1000)


def wait_until(what: str, holds: Callable[[], bool], timeout_s: float, step_s: float = 0.1) -> None:
    """Poll `holds` and fail, naming `what`, when it does not come true in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(step_s)
