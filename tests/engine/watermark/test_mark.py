"""The invisible mark: unseen, cheap, the same for the same picture, and read after what is done to video."""

from __future__ import annotations

import time
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from engine.face.image_file import decode_image
from engine.watermark.detector import find_mark, flattened
from engine.watermark.mark import Mark
from engine.watermark.payload import CODED, Payload, decode, encode
from server.live.yuv import as_frame, to_yuv
from server.settings import BUNDLED_PORTRAIT
from server.webrtc.encoders import make_h264, make_vp8

WHOSE = Payload.of("a deployment", "a session")
WINDOW = 50  # frames of 2 s
Planes = list[np.ndarray]


def head_that_moves() -> Planes:
    """Planes of YUV of 2 s in which a portrait of 512 pixels sways."""
    photo = Image.fromarray(decode_image(BUNDLED_PORTRAIT.read_bytes())).resize((560, 560))
    at = [24 + 8 * np.sin(i / 9) for i in range(WINDOW)]
    boxes = [(x, 48 - x, x + 512, 560 - x) for x in at]
    return [to_yuv(np.asarray(photo.resize((512, 512), 2, box=box))) for box in boxes]


PLAIN = head_that_moves()


def marked(mark: Mark | None = None) -> Planes:
    mark = mark or Mark(WHOSE)
    copies = [yuv.copy() for yuv in PLAIN]
    for yuv in copies:
        mark.on_luma(yuv[:512])
    return copies


def coded(frames: Planes, codec: str, bits_per_second: int) -> Planes:
    """Luma of `frames` as a viewer decodes them."""
    make, name = (make_vp8, "vp8") if codec == "vp8" else (make_h264, "h264")
    encoder = make(512, 512, bits_per_second)
    decoder = av.CodecContext.create(name, "r")
    seen = []
    for index, yuv in enumerate(frames):
        frame = as_frame(yuv)
        frame.pts, frame.time_base = index, Fraction(1, 25)
        for packet in encoder.encode(frame):
            seen += [picture.to_ndarray()[:512] for picture in decoder.decode(packet)]
    return seen


def scaled(luma: np.ndarray, by: float) -> np.ndarray:
    height, width = (round(n * by) for n in luma.shape)
    return np.asarray(Image.fromarray(luma).resize((width, height), Image.Resampling.BILINEAR))


def summed(pictures: Planes) -> np.ndarray:
    return np.sum([flattened(luma) for luma in pictures[::5]], 0)


def test_a_payload_is_read_in_spite_of_many_wrong_bits_and_noise_is_none() -> None:
    signs, dice = encode(WHOSE).astype(float), np.random.default_rng(1)
    wrong = dice.permutation(CODED)[: CODED // 8]
    signs[wrong] *= -1
    assert decode(signs) == WHOSE
    assert all(decode(dice.standard_normal(CODED)) is None for _ in range(50))
    assert decode(np.zeros(CODED)) is None


def test_the_mark_is_faint_and_the_same_for_the_same_picture() -> None:
    """A picture that is shown again is coded as one that stands still."""
    for plain, first, again in zip(PLAIN[:3], marked(), marked(), strict=False):
        np.testing.assert_array_equal(first, again)
        error = np.mean((first[:512].astype(float) - plain[:512]) ** 2)
        assert 42 < 10 * np.log10(255**2 / error) < 52
        np.testing.assert_array_equal(first[512:], plain[512:])  # no colour changes
        assert np.abs(first[:512].astype(int) - plain[:512]).max() <= 9


def test_what_stands_still_in_a_picture_stands_still_when_it_is_marked() -> None:
    """Only blocks that change get another pattern: skipped blocks stay skipped."""
    one, other = PLAIN[0][:512].copy(), PLAIN[0][:512].copy()
    other[200:260, 200:260] = 90
    mark = Mark(WHOSE)
    mark.on_luma(one)
    mark.on_luma(other)
    changed = np.argwhere(one != other)
    assert changed.min() >= 200
    assert changed.max() < 264


def test_the_mark_costs_less_than_a_millisecond_of_processor_time() -> None:
    mark, luma = Mark(WHOSE), PLAIN[0][:512].copy()
    mark.on_luma(luma)
    took = []
    for _ in range(60):
        began = time.thread_time()
        mark.on_luma(luma)
        took.append(time.thread_time() - began)
    assert np.quantile(took, 0.25) < 1e-3


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_the_mark_is_read_after_coding_and_scaling(codec: str) -> None:
    seen = coded(marked(), codec, 1_000_000)
    for by in (1.0, 0.75):
        found = find_mark(summed([scaled(luma, by) for luma in seen]))
        assert found is not None
        assert found.payload == WHOSE
        assert found.scale == pytest.approx(by, rel=0.01)


def test_the_mark_is_read_in_a_screenshot_of_a_page() -> None:
    seen = coded(marked(), "vp8", 1_000_000)[-1]
    face = scaled(seen, 0.9375)[40:470, 15:460]
    page = Image.new("L", (900, 640), 244)
    pen = ImageDraw.Draw(page)
    for line in range(30):
        pen.text((520, 20 * line), f"line {line} of a page with much to read on it", 30)
    page.paste(Image.fromarray(face), (37, 81))
    found = find_mark(flattened(np.asarray(page)))
    assert found is not None
    assert found.payload == WHOSE


def test_nothing_is_found_where_there_is_no_mark_or_that_of_another_key() -> None:
    assert find_mark(summed([yuv[:512] for yuv in PLAIN])) is None
    secret = [yuv[:512] for yuv in marked(Mark(WHOSE, "a key of sixteen letters"))]
    assert find_mark(summed(secret)) is None
    found = find_mark(summed(secret), ["a key of sixteen letters"])
    assert found is not None
    assert found.payload == WHOSE


def test_an_image_is_marked_without_its_alpha_and_without_overflow() -> None:
    mark, dice = Mark(WHOSE), np.random.default_rng(2)
    rgb = dice.choice(np.array([0, 1, 128, 254, 255], np.uint8), (70, 90, 4))
    with_mark = mark.on_rgb(rgb)
    np.testing.assert_array_equal(with_mark[..., 3], rgb[..., 3])
    difference = with_mark[..., :3].astype(int) - rgb[..., :3]
    assert 0 < np.abs(difference).max() <= 9
    assert np.abs(difference[rgb[..., :3] == 128]).max() > 0
