"""When the server is full, restarts or forgets: the page says so and finds its way back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.server_process import ServerProcess
from tests.e2e.conftest import FAKE, OpenPage
from tests.e2e.live import default_portrait, hears_sound, wait_live, wait_until

EXPECTED = r"Failed to load resource|net::ERR_"  # the browser's own lines in the console


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[ServerProcess]:
    args = ("--max-sessions", "1")  # what the engine draws does not matter here
    with ServerProcess(tmp_path / "log.txt", FAKE, args) as running:
        yield running


def test_a_full_server_is_named_and_waited_for(
    small_server: ServerProcess, open_page: OpenPage
) -> None:
    first = open_page(small_server.url)
    wait_live(first)
    second = open_page(small_server.url, allow=EXPECTED)
    second.locator("#state", has_text="The server is full, trying again in").wait_for()
    first.close()
    wait_live(second, 40)


def test_a_restarted_server_is_found_again(
    small_server: ServerProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(small_server.url, allow=EXPECTED)
    wait_live(page)
    page.locator("#picture-input").set_input_files(
        {"name": "me.jpg", "mimeType": "image/jpeg", "buffer": default_portrait(small_server)}
    )
    page.get_by_role("dialog").wait_for(state="hidden")
    wait_live(page)
    page.get_by_role("button", name="Talk", exact=True).click()
    page.get_by_role("button", name="Sound off").click()
    small_server.stop()
    page.locator("#state", has_text="trying again in").wait_for(timeout=45_000)
    with ServerProcess(tmp_path / "second.txt", FAKE, port=small_server.port):
        wait_live(page, 60)
        page.get_by_role("alert").filter(has_text="no longer has that portrait").wait_for()
        wait_until(page, "the microphone goes on", lambda: hears_sound(page, 0.5), 15)


def test_a_refused_offer_can_be_tried_again_by_hand(
    small_server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page("about:blank", allow=EXPECTED)
    body = {"error": {"code": "bad_sdp", "message": "no"}}
    page.route("**/api/offer", lambda route: route.fulfill(status=400, json=body))
    page.goto(small_server.url)
    page.get_by_role("alert").filter(has_text="could not agree").wait_for()
    page.unroute("**/api/offer")
    page.get_by_role("button", name="Try again").click()
    wait_live(page)
