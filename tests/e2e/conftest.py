"""Chromium and a server process for the end-to-end tests; loopback only."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from benchmarks.browser import launch, new_page
from benchmarks.server_process import ROOT, SERVE, ServerProcess
from server.evaluation.chromium import ChromiumMissing, find_chromium
from tests.e2e.live import write_voice

FAKE = (SERVE[0], "-m", "tests.server.fake_server")
OpenPage = Callable[..., Page]
# A script that asks for an element which the page does not have says so in the console.
NAME_MISSING_ELEMENTS = """
const find = Document.prototype.getElementById;
Document.prototype.getElementById = function (id) {
  const found = find.call(this, id);
  if (!found) console.error(`no element ${id}`);
  return found;
};
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(240))  # the first one waits for the engine, too


def server_command() -> tuple[str, ...]:
    """The real server if weights are there, else the fake engine; PORTRAITTALK_SERVER names another."""
    named = os.environ.get("PORTRAITTALK_SERVER")
    if named:
        return tuple(shlex.split(named))
    weights = ROOT / "engine" / "weights" / "tiny"
    return SERVE if any(weights.glob("*.onnx")) else FAKE


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


def start(
    tmp_path_factory: pytest.TempPathFactory, command: tuple[str, ...]
) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log.txt"
    # Pages of the tests before may still be leaving, and how busy this machine is is not the point.
    args = ("--max-sessions", "12", "--capacity", "12")
    with ServerProcess(log, command, args) as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One for all tests where it does not matter what is drawn."""
    yield from start(tmp_path_factory, FAKE)


@pytest.fixture(scope="session")
def drawing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One that draws faces, if the engine's weights are there."""
    yield from start(tmp_path_factory, server_command())


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
        page.add_init_script(NAME_MISSING_ELEMENTS)
        if script:
            page.add_init_script(script)
        page.goto(url)
        return page

    yield open_one
    for page, _, _ in opened:
        page.context.close()
    wrong = [
        e for _, errors, allow in opened for e in errors if not (allow and re.search(allow, e))
    ]
    assert not wrong, "\n".join(wrong)
