"""A made video in Chromium: its size and its colours are those of the portrait."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.avatar import AvatarEngine
from engine.config import LARGEST_SIDE, EngineConfig
from engine.offline.casting import Casting
from engine.offline.video import generate
from server.settings import BUNDLED_PORTRAIT
from tests.e2e.conftest import OpenPage
from tests.engine.audio.test_sound_file import write_wav

PATCH = (220, 20, 40)
SEEN = """async ([source, x, y]) => {
  const video = document.createElement("video");
  video.muted = true;
  video.src = source;
  await new Promise((done, failed) => { video.onloadeddata = done; video.onerror = failed; });
  video.currentTime = 0.04;
  await new Promise((done) => { video.onseeked = done; });
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const centre = [video.videoWidth / 2, video.videoHeight / 2, 1, 1];
  for (let i = 0; i < 100 && !pen.getImageData(...centre).data[3]; i += 1) { // a busy browser draws late
    await new Promise((done) => setTimeout(done, 50));
    pen.drawImage(video, 0, 0);
  }
  const { data } = pen.getImageData(x - 6, y - 6, 12, 12); // its mean: the invisible mark is noise to a colour
  const mean = [0, 0, 0, 0];
  data.forEach((value, i) => { mean[i % 4] += value / 144; });
  return [video.videoWidth, ...mean];
}"""


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return AvatarEngine.load(EngineConfig(max_side=LARGEST_SIDE))


def source(video: Path) -> str:
    content = base64.b64encode(video.read_bytes()).decode()
    return f"data:video/{video.suffix[1:]};base64,{content}"


@pytest.mark.parametrize("side", [512, 1280])
def test_a_colour_of_the_portrait_is_shown_as_it_is(
    engine: AvatarEngine, side: int, open_page: OpenPage, tmp_path: Path
) -> None:
    with Image.open(BUNDLED_PORTRAIT) as image:
        portrait = np.array(image.convert("RGB").resize((side, side)))
    portrait[:32, :32] = PATCH
    wav = write_wav(tmp_path / "a.wav", np.zeros(2 * 640))
    alpha = np.full((side, side), 255, np.uint8)
    alpha[:32, -32:] = 0
    for name, given in (("out.mp4", None), ("out.webm", alpha)):
        casting = Casting(portraits=[portrait], alpha=given)
        generate(engine, casting, wav, tmp_path / name)
    page = open_page("about:blank")
    sources = [source(tmp_path / "out.mp4"), source(tmp_path / "out.webm")]
    for made in sources:
        width, *colour = page.evaluate(SEEN, [made, 12, 12])
        assert width == side
        assert np.abs(np.subtract(np.rint(colour), (*PATCH, 255))).max() <= 2
    assert page.evaluate(SEEN, [sources[1], side - 12, 12])[-1] <= 0.5
