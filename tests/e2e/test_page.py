"""The page with a live server: alive before anyone speaks, talks, plays files, fits a phone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, Route

from benchmarks.server_process import ServerProcess
from tests.e2e.conftest import FAKE, OpenPage, server_command
from tests.e2e.live import (
    MOTION,
    default_portrait,
    hears_sound,
    sessions,
    wait_live,
    wait_until,
    write_voice,
)

COUNT_MICROPHONE_CALLS = """
window.__asked = 0;
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (wish) => { window.__asked += 1; return open(wish); };
"""


def refuse_microphone(name: str) -> str:
    return (
        "navigator.mediaDevices.getUserMedia = () => "
        f"Promise.reject(new DOMException('refused', '{name}'));"
    )


def test_the_face_is_alive_before_anyone_speaks(
    drawing_server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(drawing_server.url, script=COUNT_MICROPHONE_CALLS)
    wait_live(page)
    moved = [page.evaluate(MOTION, 400) for _ in range(10)]
    assert max(moved) > 0.02, f"the picture stands still: {moved}"
    assert page.evaluate("window.__asked") == 0, "the microphone was asked for without a click"
    assert page.locator("#state").inner_text().startswith("Live")


def test_the_server_says_how_many_threads_it_took(drawing_server: ServerProcess) -> None:
    if server_command() == FAKE:
        pytest.skip("the fake engine has no graphs")
    said = drawing_server.log.read_text()
    assert re.search(r"\d (engine threads?|CPU threads? a graph): denoise", said)


def test_delay_and_frame_rate_are_shown(drawing_server: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(drawing_server.url)
    wait_live(page)
    page.wait_for_function("parseFloat(document.getElementById('fps').textContent) > 1")
    page.wait_for_function("parseFloat(document.getElementById('delay').textContent) > 20")
    page.click("summary")
    page.wait_for_function("document.querySelectorAll('#legs tr').length >= 5")
    for plot in ("delay-plot", "fps-plot"):
        drawn = page.evaluate(
            "(id) => { const c = document.getElementById(id);"
            " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v) }",
            plot,
        )
        assert drawn, f"{plot} is empty"


def test_the_microphone_is_heard_and_can_be_muted(
    server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(server.url)
    wait_live(page)
    page.get_by_role("button", name="Talk", exact=True).click()
    page.get_by_role("button", name="Stop talking").wait_for()
    assert page.evaluate("document.getElementById('video').muted"), "the loudspeaker would howl"
    assert page.locator("#hint").is_visible()

    page.get_by_role("button", name="Sound off").click()
    assert not page.evaluate("document.getElementById('video').muted")
    assert not page.locator("#hint").is_visible()
    wait_until(page, "the voice comes back", lambda: hears_sound(page, 0.5), 15)

    page.get_by_role("button", name="Mute", exact=True).click()
    wait_until(page, "silence after Mute", lambda: not hears_sound(page, 0.5), 10)
    page.get_by_role("button", name="Unmute").click()
    wait_until(page, "the voice is back after Unmute", lambda: hears_sound(page, 0.5), 10)

    page.get_by_role("button", name="Stop talking").click()
    page.get_by_role("button", name="Talk", exact=True).wait_for()
    wait_until(page, "silence in the end", lambda: not hears_sound(page, 0.5), 10)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("NotAllowedError", "The microphone is blocked"),
        ("NotFoundError", "No microphone found"),
        ("NotReadableError", "in use by another program"),
    ],
)
def test_a_missing_microphone_is_explained(
    server: ServerProcess, open_page: OpenPage, error: str, words: str
) -> None:
    page = open_page(server.url, script=refuse_microphone(error))
    page.get_by_role("button", name="Talk", exact=True).click()
    page.get_by_role("alert").filter(has_text=words).wait_for()
    assert page.get_by_role("button", name="Talk", exact=True).is_enabled()
    wait_live(page)


def test_a_sound_file_is_spoken_to_its_end(
    drawing_server: ServerProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(drawing_server.url)
    wait_live(page)
    page.mouse.click(5, 5)  # a first touch: browsers play sound only after one
    page.locator("#sound-input").set_input_files(write_voice(tmp_path / "hello.wav", 4.0))
    page.locator("#source-name", has_text="hello.wav").wait_for()
    assert not page.evaluate("document.getElementById('video').muted"), "a file should be heard"
    wait_until(page, "the file's sound comes back", lambda: hears_sound(page, 0.5), 10)
    page.locator("#source").wait_for(state="hidden", timeout=15_000)
    wait_until(page, "silence after the end", lambda: not hears_sound(page, 0.5), 10)


def test_a_sound_file_can_be_stopped(
    server: ServerProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(server.url)
    wait_live(page)
    page.mouse.click(5, 5)
    page.locator("#sound-input").set_input_files(write_voice(tmp_path / "long.wav", 60.0))
    wait_until(page, "the file's sound comes back", lambda: hears_sound(page, 0.5), 10)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("#source").wait_for(state="hidden")
    wait_until(page, "silence after Stop", lambda: not hears_sound(page, 0.5), 5)


def test_a_file_that_is_not_sound_is_explained(
    server: ServerProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(server.url)
    page.mouse.click(5, 5)
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"this is not sound" * 100)
    page.locator("#sound-input").set_input_files(broken)
    page.get_by_role("alert").filter(has_text="not a sound file").wait_for()


def test_a_dropped_sound_file_waits_for_a_click_that_allows_sound(
    server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(server.url)
    wait_live(page)
    page.evaluate(
        """() => {
          const bytes = new Uint8Array(44 + 96000);  // a second of silence at 48 kHz
          const view = new DataView(bytes.buffer);
          [0x52494646, 36 + 96000, 0x57415645, 0x666d7420, 16].forEach((v, i) =>
            view.setUint32(4 * i, v, i === 1 || i === 4));
          [1, 1].forEach((v, i) => view.setUint16(20 + 2 * i, v, true));
          [48000, 96000].forEach((v, i) => view.setUint32(24 + 4 * i, v, true));
          [2, 16].forEach((v, i) => view.setUint16(32 + 2 * i, v, true));
          view.setUint32(36, 0x64617461);
          view.setUint32(40, 96000, true);
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "dropped.wav", { type: "audio/wav" }));
          window.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
        }"""
    )
    page.get_by_role("button", name="Play", exact=True).click()
    page.locator("#source-name", has_text="dropped.wav").wait_for()
    page.locator("#source").wait_for(state="hidden")


def test_a_blocked_player_offers_a_tap(server: ServerProcess, open_page: OpenPage) -> None:
    blocked = """
    const play = HTMLMediaElement.prototype.play;
    window.__blocked = true;
    HTMLMediaElement.prototype.play = function () {
      return window.__blocked ? Promise.reject(new DOMException("no", "NotAllowedError")) : play.call(this);
    };"""
    page = open_page(server.url, script=blocked)
    tap = page.get_by_role("button", name="Tap to start")
    tap.wait_for()
    page.evaluate("window.__blocked = false")
    tap.click()
    tap.wait_for(state="hidden")
    wait_live(page)


def test_nothing_is_fetched_from_elsewhere(server: ServerProcess, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    page.goto(server.url)
    wait_live(page)
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("blob:", "data:"))}
    assert hosts == {urlsplit(server.url).netloc}


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_everything_without_scrolling_sideways(
    server: ServerProcess, open_page: OpenPage, width: int
) -> None:
    page = open_page(server.url, width=width, height=740, dark=True)
    wait_live(page)
    page.get_by_role("button", name="Talk", exact=True).click()
    page.get_by_role("button", name="Mute", exact=True).wait_for()
    page.click("summary")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in ("Stop talking", "Play a sound file", "Portrait", "Mute"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] >= 44, f"{name} is too small for a finger"


def test_the_keyboard_is_enough(server: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(server.url)
    wait_live(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "talk"
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop talking").wait_for()
    page.get_by_role("button", name="Portrait", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="Choose a portrait").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")


def test_leaving_the_page_frees_the_session(server: ServerProcess, open_page: OpenPage) -> None:
    watcher = open_page("about:blank")
    wait_until(watcher, "earlier sessions are gone", lambda: sessions(server) == 0, 30)
    page = open_page(server.url)
    wait_live(page)
    assert sessions(server) == 1
    page.close()
    wait_until(watcher, "the session is freed", lambda: sessions(server) == 0, 3)


def follow_changes(page: Page) -> list[dict[str, Any]]:
    """The server's answers to what the page changes of its session, as they come."""
    answers: list[dict[str, Any]] = []

    def carry(route: Route) -> None:
        if route.request.method != "PATCH":
            return route.fallback()
        answer = route.fetch()
        answers.append(answer.json())
        return route.fulfill(response=answer)

    page.route("**/api/sessions/*", carry)
    return answers


def test_an_expression_can_be_chosen_or_written(server: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(server.url, allow="422")
    answers = follow_changes(page)
    wait_live(page)
    page.get_by_role("button", name="Smile", exact=True).click()
    wait_until(page, "an answer", lambda: len(answers) == 1, 10)
    assert answers[0]["prompt"] == "smile 1"
    page.wait_for_function("document.querySelector('[data-word=smile]').ariaPressed === 'true'")
    words = page.get_by_role("textbox", name="Expression in words")
    words.fill("older, smiling")
    words.press("Enter")
    page.get_by_text("cannot change age").wait_for()
    words.fill("sad 0.4, brows up")
    words.press("Enter")
    wait_until(page, "the third answer", lambda: len(answers) == 3, 10)
    assert answers[2]["prompt"] == "sad 0.4, brows up 1"
    page.wait_for_function("document.getElementById('notice').hidden")


def held_offers(page: Page) -> list[Route]:
    """Keep back every offer that the page makes from now on."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "POST":
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/offer", hold)
    return held


def test_a_chip_pressed_while_the_page_connects_is_shown_when_it_stands(
    server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page("about:blank")
    held = held_offers(page)
    page.goto(server.url)
    wait_until(page, "an offer", lambda: bool(held), 10)
    assert held[0].request.post_data_json["prompt"] == ""
    for word in ("Sad", "Smile"):
        page.get_by_role("button", name=word, exact=True).click()
    page.wait_for_function("document.querySelector('[data-word=smile]').ariaPressed === 'true'")
    answers = follow_changes(page)
    held[0].continue_()
    wait_until(page, "an answer", lambda: bool(answers), 10)
    assert answers[0]["prompt"] == "smile 1"
    wait_live(page)
    assert len(held) == 1


def test_words_that_cannot_be_shown_are_refused_and_the_page_connects_all_the_same(
    server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page("about:blank", allow=r"422|net::ERR_")
    held = held_offers(page)
    page.goto(server.url)
    wait_until(page, "an offer", lambda: bool(held), 10)
    words = page.get_by_role("textbox", name="Expression in words")
    words.fill("older")
    words.press("Enter")
    page.wait_for_function("document.querySelector('[data-word=neutral]').ariaPressed === 'false'")
    held[0].abort()  # the next offer carries them
    wait_until(page, "another offer", lambda: len(held) > 1, 10)
    assert held[1].request.post_data_json["prompt"] == "older"
    held[1].continue_()
    page.get_by_text("cannot change age").wait_for()
    wait_until(page, "an offer without them", lambda: len(held) > 2, 10)
    assert held[2].request.post_data_json["prompt"] == ""
    held[2].continue_()
    wait_live(page)
    assert page.locator("[data-word=neutral]").get_attribute("aria-pressed") == "true"


def test_a_portrait_chosen_while_the_page_connects_is_the_one_shown(
    server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page("about:blank")
    held = held_offers(page)
    page.goto(server.url)
    wait_until(page, "an offer", lambda: bool(held), 10)
    portrait = {"name": "me.jpg", "mimeType": "image/jpeg", "buffer": default_portrait(server)}
    page.locator("#picture-input").set_input_files(portrait)
    wait_until(page, "an offer for the new portrait", lambda: len(held) > 1, 10)
    assert held[1].request.post_data_json["portrait_id"] != "default"
    for offer in held:
        offer.continue_()
    wait_live(page)
    chosen = page.locator("#poster").get_attribute("src")
    assert held[1].request.post_data_json["portrait_id"] in str(chosen)
    wait_until(page, "one session is left", lambda: sessions(server) == 1, 10)
