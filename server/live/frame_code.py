"""The frame code: 96 bits in black and white blocks at the top of a test frame.

Layout: 3 rows of 32 blocks. A block is a square of `width // 32` pixels; the strip starts at the
top left corner. Each row is 32 bits, most significant first; white is 1, a block is read at its
centre against 127. Over the rows:

| row | bits | meaning |
| --- | --- | --- |
| 0 | 8 | sync, always 0xA5 |
| 0 | 24 | frame counter, from 0, wraps |
| 1 | 32 | wall clock in ms at hand-over to the encoder, the low 32 bits of Unix time in ms |
| 2 | 8 | flags; bit 0: a beep begins in the 40 ms of this frame |
| 2 | 8 | id of that beep, 1 to 255, else 0 |
| 2 | 16 | CRC-16/CCITT-FALSE (0x1021, from 0xFFFF) of the ten bytes before it |
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass

import numpy as np

from engine.types import RgbImage
from server.live.yuv import Yuv

SYNC = 0xA5
ROWS, COLUMNS = 3, 32
FLAG_BEEP = 1
GREY = 128  # chroma of no colour


@dataclass(frozen=True, slots=True)
class FrameCode:
    """What the strip says."""

    counter: int
    time_ms: int
    flags: int = 0
    id: int = 0

    def to_bytes(self) -> bytes:
        """The twelve bytes of the strip, checksum included."""
        head = struct.pack(
            ">IIBB",
            SYNC << 24 | self.counter & 0xFFFFFF,
            self.time_ms & 0xFFFFFFFF,
            self.flags & 0xFF,
            self.id & 0xFF,
        )
        return head + struct.pack(">H", binascii.crc_hqx(head, 0xFFFF))


def draw(yuv: Yuv, code: FrameCode) -> None:
    """Draw the strip over the top of a picture of planes (3H/2, W), in place.

    Raises:
        ValueError: the picture is too small for the strip.
    """
    width, height = yuv.shape[1], yuv.shape[0] * 2 // 3
    block = width // COLUMNS
    if block < 2 or height < ROWS * block:
        raise ValueError(f"an image of {width}x{height} is too small for the frame code")
    bits = np.unpackbits(np.frombuffer(code.to_bytes(), dtype=np.uint8)).reshape(ROWS, COLUMNS)
    tall, wide = ROWS * block, COLUMNS * block
    yuv[:tall, :wide] = np.kron(16 + 219 * bits, np.ones((block, block), dtype=np.uint8))
    colours = yuv[height:].reshape(2, height // 2, width // 2)
    colours[:, : -(-tall // 2), : -(-wide // 2)] = GREY


def read(image: RgbImage) -> FrameCode | None:
    """Read the strip of `image` (H, W, 3); None when it is not there or damaged."""
    height, width, _ = image.shape
    block = width // COLUMNS
    if block < 2 or height < ROWS * block:
        return None
    rows = np.arange(ROWS) * block + block // 2
    columns = np.arange(COLUMNS) * block + block // 2
    bits = image[rows[:, None], columns[None, :]].mean(axis=-1) > 127
    data = np.packbits(bits.reshape(-1)).tobytes()
    head, time_ms, flags, beep, crc = struct.unpack(">IIBBH", data)
    if head >> 24 != SYNC or crc != binascii.crc_hqx(data[:10], 0xFFFF):
        return None
    return FrameCode(counter=head & 0xFFFFFF, time_ms=time_ms, flags=flags, id=beep)
