"""`portraittalk evaluate` on two seconds, and a video as a receiver in Chromium gets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from engine.evaluation.drawn_set import hum
from engine.evaluation.lossless import write_lossless
from server.evaluation.live import deliver
from server.settings import BUNDLED_PORTRAIT
from tests.e2e.conftest import FAKE

# The measures need torch, and a minute or two of two cores.
pytestmark = [pytest.mark.train, pytest.mark.slow]


def film(path: Path, seconds: float) -> None:
    """The bundled portrait, pushed about, with a sound that swells."""
    portrait = np.asarray(Image.open(BUNDLED_PORTRAIT).convert("RGB").crop((96, 0, 352, 256)))
    opening = (0.5 - 0.5 * np.cos(np.arange(round(25 * seconds)) / 3)).astype(np.float32)
    frames = (np.roll(portrait, int(3 * o), axis=1) for o in opening)
    write_lossless(frames, hum(opening), path)


@pytest.mark.timeout(600)
def test_a_set_is_evaluated_told_and_not_done_twice(tmp_path: Path, browser: Browser) -> None:
    film(tmp_path / "film.mkv", 2.0)
    film(tmp_path / "short.mkv", 0.4)
    (tmp_path / "set.toml").write_text(
        'name = "<two>"\nlicence = "public domain"\n'
        '[[clips]]\nname = "a"\nreal = "film.mkv"\n[[clips]]\nname = "b"\nreal = "short.mkv"\n'
    )
    out = tmp_path / "report"
    command = [sys.executable, "-m", "server.cli", "evaluate", "--set", str(tmp_path)]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a.mkv").symlink_to(tmp_path / "film.mkv")
    command += ["--engine", "offline", "--videos", str(tmp_path / "theirs"), "--out", str(out)]
    command += ["--protocol", "pose-given", "--blind", "offline,videos"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    told = json.loads((out / "report.json").read_text())
    assert [bad["what"] for bad in told["bad"]] == ["b"]  # 0.4 s is too short
    assert "a second is least" in told["bad"][0]["why"]
    values = {row["system"]: row["values"] for row in told["rows"]}
    assert set(values) == {"re-encode", "still", "wrong-sound", "videos", "offline"}
    assert values["videos"]["f_lmd"] == 0.0
    assert values["re-encode"]["f_lmd"] < values["offline"]["f_lmd"] < values["still"]["f_lmd"]
    assert values["re-encode"]["f_lmd"] == values["wrong-sound"]["f_lmd"]
    costs = {row["system"]: row["costs"] for row in told["rows"]}
    assert costs["re-encode"]["LPIPS (VGG)"] == costs["wrong-sound"]["LPIPS (VGG)"]  # read once
    assert all(row["cost"]["cpu_s"] > 0 for row in told["rows"])
    assert told["measuring"]["of_video_s"] == pytest.approx(49 / 25)
    assert told["measuring"]["peak_mb"] <= 4096

    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{out / 'index.html'}")
    assert page.locator("h1").inner_text() == "Evaluation of <two>"
    assert page.get_by_text("PortraitTalk prints, on HDTF (other data)").count() > 0
    assert page.get_by_text("What measuring cost").count() == len(told["rows"]) // len(values)
    broken = "() => [...document.images].filter((image) => !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
    beside = "e => { const [a, b] = [e, e.nextElementSibling].map(x => x.getBoundingClientRect());"
    beside += " return [a.top === b.top, b.left - a.right]; }"
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        bad = page.locator(".worst")
        assert bad.count() > 0
        for i in range(bad.count()):  # what it should have been stands beside it
            same_row, gap = bad.nth(i).evaluate(beside)
            assert same_row
            assert gap < 10
    page.goto(f"file://{out / 'blind.html'}")
    page.wait_for_function("() => document.getElementById('left').videoWidth > 0")
    page.keyboard.press("a")
    with page.expect_download() as saving:
        page.get_by_text("Save the votes").click()
    saving.value.save_as(tmp_path / "votes.json")
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    page.close()

    made = {path: path.stat().st_mtime_ns for path in (out / "kept").rglob("*.mkv")}
    votes = [*command[:4], "--votes", str(tmp_path / "votes.json"), "--out", str(out)]
    assert "of 1 votes" in subprocess.run(votes, capture_output=True, text=True, timeout=60).stdout
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    assert made == {path: path.stat().st_mtime_ns for path in (out / "kept").rglob("*.mkv")}


def test_what_a_receiver_gets_is_put_in_the_order_of_the_sound(
    tmp_path: Path, browser: Browser
) -> None:
    portrait = np.full((160, 160, 3), 90, np.uint8)
    sound = hum(np.ones(25, np.float32))
    made = deliver(browser, portrait, sound, tmp_path, (*FAKE, "--frame-code"))
    assert len(made.frames) == 25
    assert made.frames[0].shape == portrait.shape
    assert made.held < 25
    assert made.latency_ms > 0
