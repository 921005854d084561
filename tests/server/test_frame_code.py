"""The frame code strip: what is drawn can be read, also after a real encoder."""

from __future__ import annotations

import binascii
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import RgbImage
from server.live.frame_code import COLUMNS, FLAG_BEEP, ROWS, FrameCode, draw, read
from server.live.yuv import Yuv, as_frame
from server.webrtc.encoders import make_vp8

CODES = st.builds(
    FrameCode,
    counter=st.integers(0, 0xFFFFFF),
    time_ms=st.integers(0, 0xFFFFFFFF),
    flags=st.integers(0, 255),
    id=st.integers(0, 255),
)


def planes(height: int, width: int, level: int = 90) -> Yuv:
    return np.full((height * 3 // 2, width), level, dtype=np.uint8)


def seen(yuv: Yuv) -> RgbImage:
    """What a receiver sees."""
    return as_frame(yuv).to_ndarray(format="rgb24")


@given(CODES, st.sampled_from([64, 256, 500, 512, 718]))
def test_what_is_drawn_is_read(code: FrameCode, width: int) -> None:
    yuv = planes(128, width)
    draw(yuv, code)
    assert read(seen(yuv)) == code
    assert (yuv[ROWS * (width // COLUMNS) : 128] == 90).all()


def test_the_layout_is_the_documented_one() -> None:
    yuv = planes(512, 512)
    draw(yuv, FrameCode(counter=1, time_ms=0x80000003, flags=FLAG_BEEP, id=2))
    blocks = seen(yuv)[8:48:16, 8::16, 0] // 255
    rows = ["".join(map(str, row)) for row in blocks]
    assert rows[0] == "10100101" + "0" * 23 + "1"
    assert rows[1] == "1" + "0" * 29 + "11"
    assert rows[2][:16] == "00000001" + "00000010"
    head = bytes([0xA5, 0, 0, 1, 0x80, 0, 0, 3, 1, 2])
    assert int(rows[2][16:], 2) == binascii.crc_hqx(head, 0xFFFF)


def test_the_checksum_is_ccitt_false() -> None:
    assert binascii.crc_hqx(b"123456789", 0xFFFF) == 0x29B1


def test_counter_and_time_wrap() -> None:
    yuv = planes(64, 512)
    draw(yuv, FrameCode(counter=0x1000005, time_ms=(1 << 32) + 7))
    assert read(seen(yuv)) == FrameCode(counter=5, time_ms=7)


def test_a_picture_without_or_with_a_damaged_strip_says_nothing() -> None:
    yuv = np.random.default_rng(0).integers(0, 255, (768, 512), dtype=np.uint8)
    assert read(seen(yuv)) is None
    draw(yuv, FrameCode(counter=9, time_ms=9))
    assert read(seen(yuv)) is not None
    yuv[16:32, 64:80] = 255 - yuv[16:32, 64:80]
    assert read(seen(yuv)) is None
    assert read(np.zeros((5, 512, 3), dtype=np.uint8)) is None


def test_a_picture_too_small_for_the_strip_is_refused() -> None:
    with pytest.raises(ValueError, match="32x32"):
        draw(planes(32, 32), FrameCode(0, 0))


def test_the_strip_survives_vp8_at_a_low_rate() -> None:
    encoder = make_vp8(512, 512, 300_000)
    encoder.time_base = Fraction(1, 25)
    decoder = av.CodecContext.create("vp8", "r")
    noise = np.random.default_rng(1).integers(60, 180, (768, 512), dtype=np.uint8)
    codes = []
    for i in range(10):
        yuv = np.roll(noise, 3 * i, axis=1)
        draw(yuv, FrameCode(counter=i, time_ms=1000 * i, flags=i % 2, id=i))
        frame = as_frame(yuv)
        frame.pts = i
        for packet in encoder.encode(frame):
            codes += [read(out.to_ndarray(format="rgb24")) for out in decoder.decode(packet)]
    assert codes == [FrameCode(i, 1000 * i, i % 2, i) for i in range(10)]
