"""The avatar as a web component on a page of another site, alone and beside an assistant."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page
from websockets.sync.client import ClientConnection, connect

from benchmarks.server_process import ServerProcess
from tests.e2e.conftest import FAKE, OpenPage
from tests.e2e.live import sessions, wait_live, wait_until

ICON = "404"  # the site has none
ELEMENT = "document.querySelector('portrait-talk')"
NOTE_EVENTS = """
window.__events = [];
addEventListener("DOMContentLoaded", () => {
  const types = ["caption", "interrupted", "speaking_started", "speaking_stopped", "connection"];
  for (const type of types)
    document.querySelector("portrait-talk").addEventListener(type, ({ detail }) => window.__events.push({ ...detail, type }));
});
"""
BLOCK_SOUND = """
addEventListener("pointerdown", () => (window.__touched = true), { capture: true });
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  return !this.muted && !window.__touched ? Promise.reject(new DOMException("no", "NotAllowedError")) : play.call(this);
};"""
WORDS = ["Hello", "from", "another", "site."]


class QuietSite(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Another site: its address and its folder."""
    folder = tmp_path_factory.mktemp("site")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietSite, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def allowing(
    site: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTRAITTALK__DISCLOSURE", "on")
        patch.setenv("PORTRAITTALK__DISCLOSURE_LABEL", "Von einer KI")
        with ServerProcess(log, FAKE, ("--allow-origin", site[0])) as running:
            yield running


def write_page(folder: Path, server: ServerProcess, attributes: str) -> None:
    """The three lines that the README shows."""
    (folder / "index.html").write_text(
        "<!doctype html><html lang=en><title>A shop</title>\n"
        f'<script type="module" src="{server.url}/embed.js"></script>\n'
        f"<portrait-talk {attributes}></portrait-talk>\n"
    )


def wait_state(page: Page, state: str) -> None:
    page.wait_for_function(f"{ELEMENT}?.state === '{state}'")


def say(socket: ClientConnection, utterance: str, seconds: float) -> None:
    """Say a buzz with the words, one each 300 ms."""
    socket.send(json.dumps({"type": "begin", "utterance": utterance, "rate_hz": 24_000}))
    words = [{"text": w, "start_ms": 300 * i, "end_ms": 300 * (i + 1)} for i, w in enumerate(WORDS)]
    socket.send(json.dumps({"type": "words", "words": words}))
    t = np.arange(round(24_000 * seconds)) / 24_000
    socket.send((np.sin(2 * np.pi * 150 * t) * 9000).astype("<i2").tobytes())
    socket.send(json.dumps({"type": "end"}))


def test_three_lines_of_html_are_an_avatar(
    site: tuple[str, Path], allowing: ServerProcess, open_page: OpenPage
) -> None:
    write_page(site[1], allowing, 'voice="assistant" captions')
    page = open_page(site[0], script=NOTE_EVENTS + BLOCK_SOUND, allow=ICON)
    wait_state(page, "live")
    page.get_by_text("Live", exact=True).wait_for()
    page.get_by_text("Von einer KI").wait_for()
    page.get_by_role("button", name="Turn the sound on").click()
    page.get_by_role("button", name="Turn the sound on").wait_for(state="hidden")
    assert page.evaluate(f"{ELEMENT}.video.muted") is False

    session = page.evaluate(f"{ELEMENT}.sessionId")
    url = f"{allowing.url.replace('http', 'ws')}/api/sessions/{session}/speech"
    with connect(url, proxy=None) as socket:
        say(socket, "hello", 20.0)
        page.get_by_text("Hello from another site.").wait_for()
        page.get_by_text("Live, speaking").wait_for()
        page.evaluate(f"{ELEMENT}.interrupt()")
        page.wait_for_function("window.__events.some((e) => e.type === 'interrupted')")
    events = page.evaluate("window.__events")
    assert [e["text"] for e in events if e["type"] == "caption"] == WORDS
    [cut] = [e for e in events if e["type"] == "interrupted"]
    assert cut["utterance"] == "hello"
    assert 900 < cut["position_ms"] < 19_000
    assert page.evaluate(f"{ELEMENT}.mute(), {ELEMENT}.video.muted") is True

    page.evaluate(f"{ELEMENT}.remove()")
    wait_until(page, "its session ends", lambda: sessions(allowing) == 0, 5)


def test_who_joins_an_assistant_is_told_what_it_says_and_when_it_is_over(
    site: tuple[str, Path], allowing: ServerProcess, open_page: OpenPage
) -> None:
    url = f"{allowing.url.replace('http', 'ws')}/api/speech?listen=16000"
    with connect(url, proxy=None) as socket:
        session = json.loads(socket.recv())["session_id"]
        write_page(site[1], allowing, f'session="{session}" captions microphone manual')
        page = open_page(site[0], script=NOTE_EVENTS, allow=ICON)
        page.get_by_role("button", name="Start", exact=True).click()
        wait_state(page, "live")
        assert page.evaluate(f"{ELEMENT}.sessionId") == session
        page.get_by_role("button", name="Talk", exact=True).click()
        page.get_by_role("button", name="Stop talking").wait_for()
        wait_until(page, "the assistant hears", lambda: loud(socket), 10)
        assert page.evaluate(f"{ELEMENT}.video.muted") is False, "the assistant is not heard"
        first, page = page, open_page(f"{allowing.url}/?session={session}")
        wait_live(page)
        first.get_by_text("Shown in another window now").wait_for()
        say(socket, "hello", 2.0)
        page.locator("#captions", has_text="Hello from another site.").wait_for()
    page.locator("#state", has_text="The assistant has left").wait_for()


def loud(socket: ClientConnection) -> bool:
    """Whether the next packet of the microphone is no silence."""
    while isinstance(packet := socket.recv(timeout=5), str):
        pass
    return bool(np.abs(np.frombuffer(packet, "<i2").astype(int)).max(initial=0) > 300)
