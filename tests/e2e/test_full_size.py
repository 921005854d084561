"""The full-size profile live, small and with random weights, hearing with a small random HuBERT."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from benchmarks.server_process import SERVE, ServerProcess
from tests.e2e.conftest import OpenPage
from tests.e2e.live import sessions, wait_live, wait_until

pytestmark = pytest.mark.train  # needs torch
# The video as 64 x 64 grey levels.
PICTURE = """() => {
  const video = document.getElementById("video");
  const pen = new OffscreenCanvas(64, 64).getContext("2d", { willReadFrequently: true });
  pen.drawImage(video, 0, 0, 64, 64);
  const shown = pen.getImageData(0, 0, 64, 64).data;
  return Array.from({ length: 64 * 64 }, (_, i) => (shown[4 * i] + shown[4 * i + 1] + shown[4 * i + 2]) / 3);
}"""
STREAMS = re.compile(rb"^portraittalk_engine_streams_a_step (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    pytest.importorskip("diffusers")
    from benchmarks.small_hubert import write_models

    models = tmp_path_factory.mktemp("models")
    write_models(models)
    args = ["--profile", "sd15", "--random-weights", "small", "--steps", "1", "--threads", "1"]
    args += ["--speech", "hubert-base", "--models-dir", str(models)]
    args += ["--max-sessions", "2", "--capacity", "2"]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with ServerProcess(log, SERVE, tuple(args)) as running:
        yield running


def picture(page: Page) -> np.ndarray:
    return np.array(page.evaluate(PICTURE))


def differs(page: Page, before: np.ndarray) -> bool:
    """By far more than a coder's second thoughts about the same picture, which are below 1."""
    return bool(np.abs(picture(page) - before).mean() > 3)


def test_two_viewers_see_faces_that_do_as_asked_drawn_in_one_batch(
    full_size: ServerProcess, open_page: OpenPage, voice: Path
) -> None:
    config = full_size.get("/api/config")
    assert config["profile"] == "sd15"
    assert config["speech"] == "hubert-base"
    assert config["lookahead_ms"] == 280
    pages = [open_page(full_size.url) for _ in range(2)]
    for page in pages:
        wait_live(page, 60)
    assert sessions(full_size) == 2
    for page in pages:
        page.wait_for_function("parseFloat(document.getElementById('fps').textContent) > 1")
    before = [picture(page) for page in pages]
    pages[0].wait_for_timeout(2000)
    for page, shown in zip(pages, before, strict=True):
        page.get_by_role("button", name="Surprised").click()
        wait_until(page, "another picture", partial(differs, page, shown), 30)

    def together() -> bool:
        with urllib.request.urlopen(f"{full_size.url}/metrics", timeout=10) as answer:
            found = STREAMS.search(answer.read())
        assert found
        return float(found[1]) > 1

    wait_until(pages[0], "a step of both streams", together, 30)
    assert "hubert-base hears every 160 ms and looks 280 ms ahead" in full_size.log.read_text()
