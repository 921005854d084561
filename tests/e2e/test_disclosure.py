"""A server for others: the page says that it is AI-generated, its screenshots too, and it asks for consent."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.server_process import ServerProcess
from engine.watermark.detector import find_mark, flattened
from server.settings import BUNDLED_PORTRAIT
from tests.e2e.conftest import FAKE, OpenPage
from tests.e2e.live import wait_live, wait_until
from tests.e2e.test_portraits import upload
from tests.server.test_consent import SECRET, bearer


def token() -> str:
    """A new one: those that were made as the tests were collected may be over."""
    return bearer("ann", "view speak control portraits")["Authorization"].removeprefix("Bearer ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disclosing")


@pytest.fixture(scope="module")
def disclosing(folder: Path) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTRAITTALK__AUTH_SECRET", SECRET)
        patch.setenv("PORTRAITTALK__DISCLOSURE", "on")
        patch.setenv("PORTRAITTALK__AUDIT_LOG", str(folder / "audit"))
        with ServerProcess(folder / "log.txt", FAKE) as running:
            yield running


def audit(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit").read_text().splitlines()]


def test_a_page_of_a_server_for_others_says_what_it_shows_and_asks_who_agreed(
    disclosing: ServerProcess, folder: Path, open_page: OpenPage
) -> None:
    page = open_page(f"{disclosing.url}#token={token()}", width=1100, height=800)
    wait_live(page)
    page.get_by_text("AI-generated", exact=True).wait_for()
    page.wait_for_timeout(2500)  # a picture comes to rest in the coder
    shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
    found = find_mark(flattened(np.asarray(shot)))
    assert found is not None
    (opened,) = [line for line in audit(folder) if line["event"] == "session_opened"]
    assert f"{found.payload.session:08x}" == opened["mark"]

    page.get_by_role("button", name="Portrait", exact=True).click()
    dialog = page.get_by_role("dialog", name="Choose a portrait")
    photo = BUNDLED_PORTRAIT.read_bytes()
    upload(page, "me.png", photo, "image/png")
    page.get_by_text("Write who is in the picture").wait_for()
    dialog.get_by_label("Name of the person in the picture").fill("Zoë 李")
    dialog.get_by_label("What they agree to").fill("a greeting")
    upload(page, "me.png", photo, "image/png")
    dialog.wait_for(state="hidden")
    wait_until(
        page,
        "the log has who enrolled",
        lambda: [line["subject"] for line in audit(folder) if "consent" in line] == ["ann"],
        5,
    )
