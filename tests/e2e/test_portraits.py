"""Choosing a portrait: another face appears, and a bad picture is explained in plain words."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route

from benchmarks.picture_files import FILES
from benchmarks.server_process import ServerProcess
from tests.e2e.conftest import FAKE, OpenPage, server_command
from tests.e2e.live import default_portrait, wait_live, wait_until

REFUSED = r"the server responded with a status of 4\d\d"  # the browser's own line in the console

WORDS = {
    "no_face": "No face found",
    "no_such_face": "not found again",
    "face_too_small": "too small",
    "turned_away": "turned away",
    "mouth_hidden": "covered or cut off",
    "mouth_open": "wide open",
    "bad_image": "not a picture",
    "too_large": "too big",
    "server_full": "busy",
}


def upload(page: Page, name: str, content: bytes, kind: str = "image/jpeg") -> None:
    page.locator("#picture-input").set_input_files(
        {"name": name, "mimeType": kind, "buffer": content}
    )


def jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def test_an_uploaded_portrait_takes_over(
    drawing_server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(drawing_server.url)
    wait_live(page)
    first = page.locator("#poster").get_attribute("src")
    page.get_by_role("button", name="Portrait", exact=True).click()
    page.get_by_role("dialog", name="Choose a portrait").wait_for()
    astronaut = Image.open(io.BytesIO(default_portrait(drawing_server))).convert("RGB")
    upload(page, "me.jpg", jpeg(astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    page.get_by_role("dialog").wait_for(state="hidden")
    wait_until(
        page,
        "the poster is the new portrait",
        lambda: page.locator("#poster").get_attribute("src") != first,
        5,
    )
    wait_live(page)
    page.get_by_role("button", name="Portrait", exact=True).click()
    page.locator("#gallery button[aria-pressed=true]").wait_for()


@pytest.mark.parametrize("code", list(WORDS))
def test_every_refusal_has_plain_words(
    server: ServerProcess, open_page: OpenPage, code: str
) -> None:
    page = open_page(server.url, allow=REFUSED)
    wait_live(page)

    def refuse(route: Route) -> None:
        if route.request.method != "POST":
            return route.continue_()
        body = {"error": {"code": code, "message": "for logs only"}}
        return route.fulfill(status=422, json=body)

    page.route("**/api/portraits", refuse)
    upload(page, "any.jpg", default_portrait(server))
    page.locator("#preview-text", has_text=WORDS[code]).wait_for()
    assert page.get_by_role("dialog").is_visible(), "the visitor should be able to try another one"
    assert page.locator("#pill").get_attribute("data-state") == "live"


@pytest.mark.parametrize("kind", ["image/jpeg", "text/plain", ""])
def test_a_text_file_is_not_a_picture(
    server: ServerProcess, open_page: OpenPage, kind: str
) -> None:
    page = open_page(server.url, allow=REFUSED)
    upload(page, "letter", b"Dear reader, this is no picture.", kind)
    page.locator("#preview-text", has_text=WORDS["bad_image"]).wait_for()


def test_a_picture_that_is_too_big_is_refused_before_it_is_sent(
    server: ServerProcess, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(server.url)
    big = tmp_path / "big.tiff"
    big.write_bytes(b"II*\x00" + bytes(11_000_000))
    page.locator("#picture-input").set_input_files(big)
    page.locator("#preview-text", has_text=WORDS["too_large"]).wait_for()


def test_a_large_photo_is_made_smaller_in_the_browser(
    server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(server.url, allow=REFUSED)
    sizes: list[int] = []

    def measure(route: Route) -> None:
        body = route.request.post_data_buffer
        if body:
            sizes.append(len(body))
        route.continue_()

    page.route("**/api/portraits", measure)
    face = Image.open(io.BytesIO(default_portrait(server))).convert("RGB").resize((1400, 1100))
    out = io.BytesIO()
    face.save(out, "BMP")
    assert len(out.getvalue()) > 4_500_000
    upload(page, "photo.bmp", out.getvalue(), "image/bmp")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert sizes, "nothing was sent"
    assert 10_000 < sizes[0] < 1_500_000


def bad_portrait(code: str, face: Image.Image) -> Image.Image:
    """A picture that the server under test refuses with `code`.

    The fake engine goes by colour; the real one looks. `face` is the bundled portrait, 512 px.
    """
    if server_command() == FAKE:
        colours = {"no_face": "black", "mouth_hidden": "white", "face_too_small": "#808080"}
        return Image.new("RGB", (640, 640), colours[code])
    head = face.crop((100, 0, 340, 240))
    if code == "face_too_small":
        canvas = Image.new("RGB", (420, 320), (120, 125, 130))
        canvas.paste(head.resize((100, 100)), (160, 90))
        return canvas
    if code == "mouth_hidden":
        covered = next(file for file in FILES if file.name == "microphone")
        return Image.open(io.BytesIO(covered.make()))
    canvas = Image.new("RGB", (1024, 512), (120, 125, 130))
    return canvas


@pytest.mark.parametrize("code", ["no_face", "mouth_hidden", "face_too_small"])
def test_the_server_tells_bad_portraits_apart(
    drawing_server: ServerProcess, open_page: OpenPage, code: str
) -> None:
    face = (
        Image.open(io.BytesIO(default_portrait(drawing_server))).convert("RGB").resize((512, 512))
    )
    page = open_page(drawing_server.url, allow=REFUSED)
    upload(page, "bad.jpg", jpeg(bad_portrait(code, face)))
    page.locator("#preview-text", has_text=WORDS[code]).wait_for()


def test_of_two_faces_another_one_can_be_chosen(
    drawing_server: ServerProcess, open_page: OpenPage
) -> None:
    face = (
        Image.open(io.BytesIO(default_portrait(drawing_server))).convert("RGB").resize((512, 512))
    )
    head = face.crop((100, 0, 340, 240))
    pair = Image.new("RGB", (1024, 512), (120, 125, 130))
    pair.paste(head.resize((400, 400)), (60, 60))
    pair.paste(head.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((512, 512)), (512, 0))
    page = open_page(drawing_server.url)
    wait_live(page)
    upload(page, "pair.jpg", jpeg(pair))
    page.get_by_role("button", name="Face 2 of 2", pressed=True).wait_for()
    first = page.locator("#poster").get_attribute("src")
    assert "largest" in page.locator("#notice-text").inner_text()
    with page.expect_response("**/api/portraits?face=1") as answer:
        page.get_by_role("button", name="Face 1 of 2").click()
    chosen = answer.value.json()
    assert (chosen["face"], chosen["notices"]) == (1, [])
    page.get_by_role("dialog").wait_for(state="hidden")
    wait_until(
        page,
        "the poster is the face that was chosen",
        lambda: page.locator("#poster").get_attribute("src") != first,
        5,
    )
