"""The frame code strip: what is drawn can be read, also after a real encoder."""

from __future__ import annotations

import binascii
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.frame_code import COLUMNS, FLAG_BEEP, ROWS, FrameCode, draw, read

CODES = st.builds(
    FrameCode,
    counter=st.integers(0, 0xFFFFFF),
    time_ms=st.integers(0, 0xFFFFFFFF),
    flags=st.integers(0, 255),
    id=st.integers(0, 255),
)


@given(CODES, st.sampled_from([64, 256, 500, 512, 719]))
def test_what_is_drawn_is_read(code: FrameCode, width: int) -> None:
    image = np.full((128, width, 3), 90, dtype=np.uint8)
    draw(image, code)
    assert read(image) == code
    assert (image[ROWS * (width // COLUMNS) :] == 90).all()


def test_the_layout_is_the_documented_one() -> None:
    image = np.full((512, 512, 3), 90, dtype=np.uint8)
    draw(image, FrameCode(counter=1, time_ms=0x80000003, flags=FLAG_BEEP, id=2))
    blocks = image[8:48:16, 8::16, 0] // 255
    rows = ["".join(map(str, row)) for row in blocks]
    assert rows[0] == "10100101" + "0" * 23 + "1"
    assert rows[1] == "1" + "0" * 29 + "11"
    assert rows[2][:16] == "00000001" + "00000010"
    head = bytes([0xA5, 0, 0, 1, 0x80, 0, 0, 3, 1, 2])
    assert int(rows[2][16:], 2) == binascii.crc_hqx(head, 0xFFFF)


def test_the_checksum_is_ccitt_false() -> None:
    assert binascii.crc_hqx(b"123456789", 0xFFFF) == 0x29B1


def test_counter_and_time_wrap() -> None:
    image = np.zeros((64, 512, 3), dtype=np.uint8)
    draw(image, FrameCode(counter=0x1000005, time_ms=(1 << 32) + 7))
    assert read(image) == FrameCode(counter=5, time_ms=7)


def test_a_picture_without_or_with_a_damaged_strip_says_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    assert read(image) is None
    draw(image, FrameCode(counter=9, time_ms=9))
    image[16:32, 64:80] = 255 - image[16:32, 64:80]
    assert read(image) is None
    assert read(np.zeros((5, 512, 3), dtype=np.uint8)) is None


def test_a_picture_too_small_for_the_strip_is_refused() -> None:
    with pytest.raises(ValueError, match="32x32"):
        draw(np.zeros((32, 32, 3), dtype=np.uint8), FrameCode(0, 0))


def test_the_strip_survives_vp8_at_a_low_rate() -> None:
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width = encoder.height = 512
    encoder.pix_fmt, encoder.bit_rate = "yuv420p", 300_000
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
    decoder = av.CodecContext.create("vp8", "r")
    noise = np.random.default_rng(1).integers(60, 180, (512, 512, 3), dtype=np.uint8)
    seen = []
    for i in range(10):
        image = np.roll(noise, 3 * i, axis=1)
        draw(image, FrameCode(counter=i, time_ms=1000 * i, flags=i % 2, id=i))
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        frame.pts = i
        for packet in encoder.encode(frame):
            seen += [read(out.to_ndarray(format="rgb24")) for out in decoder.decode(packet)]
    assert seen == [FrameCode(i, 1000 * i, i % 2, i) for i in range(10)]
