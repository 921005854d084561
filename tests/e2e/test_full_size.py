"""The full-size profile live, small and with random weights, hearing with a small random HuBERT."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.server_process import SERVE, ServerProcess
from tests.e2e.conftest import OpenPage
from tests.e2e.live import MOTION, sessions, wait_live, wait_until

pytestmark = pytest.mark.train  # needs torch
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


def test_two_viewers_see_faces_that_move_drawn_in_one_batch(
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
        wait_until(page, "a moving picture", lambda p=page: p.evaluate(MOTION, 400) > 0.02, 30)  # type: ignore[misc]
        page.wait_for_function("parseFloat(document.getElementById('fps').textContent) > 1")

    def together() -> bool:
        with urllib.request.urlopen(f"{full_size.url}/metrics", timeout=10) as answer:
            found = STREAMS.search(answer.read())
        assert found
        return float(found[1]) > 1

    wait_until(pages[0], "a step of both streams", together, 30)
    assert "hubert-base hears every 160 ms and looks 280 ms ahead" in full_size.log.read_text()
