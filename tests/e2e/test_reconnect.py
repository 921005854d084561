"""When the network changes or the server goes: the page says so within a second and is back at once."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Response

from benchmarks.browser import WATCH_CONNECTIONS
from benchmarks.server_process import ROOT, ServerProcess
from server.evaluation.chromium import FLAGS, find_chromium
from tests.e2e.conftest import FAKE, OpenPage
from tests.e2e.live import MOTION, sessions, wait_live, wait_until
from tests.e2e.network import SERVER_IP, NoNetwork, Wire, running, wire

pytestmark = pytest.mark.timing
EXPECTED = r"Failed to load resource|net::ERR_"  # the browser's own lines in the console
# The longest time without a frame, and how long the page ever said "Live" over a face that stood still.
WATCH = """
window.__watch = { last: 0, gap: 0, frozen: 0 };
addEventListener("DOMContentLoaded", () => {
  const video = document.getElementById("video");
  let unsaid = 0;  // when it last did not say so
  const seen = () => {
    const { last, gap } = window.__watch;
    window.__watch.last = performance.now();
    window.__watch.gap = Math.max(gap, last && window.__watch.last - last);
    video.requestVideoFrameCallback(seen);
  };
  video.requestVideoFrameCallback(seen);
  setInterval(() => {
    const now = performance.now();
    if (!document.getElementById("state").textContent.startsWith("Live")) unsaid = now;
    const still = now - Math.max(window.__watch.last, unsaid);
    window.__watch.frozen = Math.max(window.__watch.frozen, still);
  }, 20);
});
"""
# A copy of the bundled portrait, shown by the session at this path.
OTHER_PORTRAIT = """async (path) => {
  const face = await (await fetch("api/portraits/default/image")).blob();
  const upload = { method: "POST", headers: { "Content-Type": "image/jpeg" }, body: face };
  const { id } = await (await fetch("api/portraits", upload)).json();
  const body = JSON.stringify({ portrait_id: id });
  await fetch(path, { method: "PATCH", headers: { "Content-Type": "application/json" }, body });
  return id;
}"""
NOT_LIVE = "() => !document.getElementById('state').textContent.startsWith('Live')"


def follow_answers(page: Page) -> list[dict[str, Any]]:
    """The server's answers to the page's offers, as they come."""
    answers: list[dict[str, Any]] = []

    def note(response: Response) -> None:
        if (
            response.url.endswith("/api/offer")
            and response.request.method == "POST"
            and response.ok
        ):
            answers.append(response.json())

    page.on("response", note)
    return answers


def longest_gap_s(page: Page) -> float:
    """The longest time without a frame, a frame just seen; forgets it."""
    page.wait_for_function(
        "(then) => window.__watch.last > then", arg=page.evaluate("performance.now()")
    )
    return float(page.evaluate("[window.__watch.gap, (window.__watch.gap = 0)][0]")) / 1000


@pytest.fixture
def two_machines() -> Iterator[Wire]:
    try:
        with wire() as made:
            yield made
    except NoNetwork as missing:
        pytest.skip(f"network namespaces cannot be made here: {missing}")


@pytest.fixture
def far_browser(browser: Browser, two_machines: Wire, tmp_path: Path) -> Iterator[Browser]:
    """A browser on the other machine."""
    script = tmp_path / "chromium"
    command = " ".join(two_machines.inside(two_machines.client, str(find_chromium())))
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    launched = browser.browser_type.launch(executable_path=script, args=[*FLAGS])
    yield launched
    launched.close()


PORT = """async () => {
  const stats = await window.__connections.at(-1).getStats();
  for (const stat of stats.values())
    if (stat.type === "candidate-pair" && stat.nominated) return stats.get(stat.remoteCandidateId).port;
}"""


def test_when_the_way_to_the_server_changes_the_same_session_goes_on(
    two_machines: Wire, far_browser: Browser, tmp_path: Path
) -> None:
    command = two_machines.inside(two_machines.server, *FAKE, "--port", "0")
    with running(command, tmp_path / "log.txt", ROOT) as port:
        page = far_browser.new_page()
        page.set_default_timeout(20_000)
        page.add_init_script(WATCH_CONNECTIONS)
        page.add_init_script(WATCH)
        answers = follow_answers(page)
        page.goto(f"http://{SERVER_IP}:{port}/")
        wait_live(page)
        about = f"api/sessions/{answers[0]['session_id']}"
        portrait = page.evaluate(OTHER_PORTRAIT, about)

        longest_gap_s(page)

        two_machines.move()
        page.wait_for_timeout(2_000)
        assert longest_gap_s(page) <= 2.0

        two_machines.block(page.evaluate(PORT))  # a router forgets it, or the network is another
        page.wait_for_function(NOT_LIVE, polling=20)
        page.wait_for_selector("#pill[data-state=live]")
        assert 0.7 <= longest_gap_s(page) <= 2.0
        assert len(answers) > 1
        assert {answer["session_id"] for answer in answers} == {answers[0]["session_id"]}

        session = page.evaluate("async (path) => (await fetch(path)).json()", about)
        assert session["portrait_id"] == portrait
        assert session["viewers"] == 1
        assert page.evaluate("window.__watch.frozen") <= 1000


def test_what_ends_or_stops_is_not_called_live(open_page: OpenPage, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "log.txt", FAKE) as server:
        page = open_page(server.url, allow=EXPECTED, script=WATCH)
        answers = follow_answers(page)
        wait_live(page)
        page.get_by_role("button", name="Smile", exact=True).click()

        path = f"api/sessions/{answers[0]['session_id']}"
        page.evaluate("(path) => fetch(path, { method: 'DELETE' })", path)
        page.locator("#state", has_text="The session was ended").wait_for(timeout=1500)
        page.get_by_role("button", name="Start again").click()
        wait_live(page)
        assert answers[1]["session_id"] != answers[0]["session_id"]

        os.kill(server.pid, signal.SIGSTOP)
        page.wait_for_function(NOT_LIVE, polling=20)
        page.locator("#state", has_text="Connection lost, reconnecting").wait_for()
        assert page.locator(".stage.playing").count(), "the last frame should stay"
        os.kill(server.pid, signal.SIGCONT)
        wait_live(page)
        assert {answer["session_id"] for answer in answers[1:]} == {answers[1]["session_id"]}
        wait_until(page, "the face moves again", lambda: page.evaluate(MOTION, 300) > 0.02, 10)

        os.kill(server.pid, signal.SIGKILL)
        page.wait_for_function(NOT_LIVE, polling=20)
        page.locator("#state", has_text="The server cannot be reached").wait_for()
        assert page.evaluate("window.__watch.frozen") <= 1000
    with (
        ServerProcess(tmp_path / "again.txt", FAKE, port=server.port) as restarted,
        page.expect_request(
            lambda r: r.method == "POST" and "portrait_id" in (r.post_data or "")
        ) as offer,
    ):
        wait_live(page)
        assert offer.value.post_data_json["prompt"] == "smile"
        assert sessions(restarted) == 1
