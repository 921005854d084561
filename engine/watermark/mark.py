"""Puts a mark into pictures: a faint pattern, less faint where much is going on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.types import RgbImage
from engine.watermark.keys import PUBLIC_KEY, check_key
from engine.watermark.payload import Payload
from engine.watermark.tile import SIDE, make_tile

FAINT, CLEAR = 0.7, 1.8  # root mean square of the pattern, of 255
BUSY = 10  # from the darkest to the brightest pixel of a block, which hides the clear pattern
_BLOCK = 8  # pixels

Plane = NDArray[np.uint8]


class Mark:
    """The mark of one session or file; the same picture always gets the same pattern.

    What is added may be negative: numbers without a sign wrap round. Any thread may call.

    Args:
        key: who knows it can read the mark, and make it; "": everybody.

    Raises:
        ConfigError: the key is short.
    """

    def __init__(self, payload: Payload, key: str = "") -> None:
        check_key(key)
        self.payload, self._key = payload, key or PUBLIC_KEY
        self._made: tuple[Plane, Plane] | None = None  # the faint one, and what makes it clear

    def on_luma(self, luma: Plane) -> None:
        """Mark a plane (H, W) of studio range, 16 to 235, in place."""
        luma += self._pattern(luma)

    def on_rgb(self, rgb: RgbImage) -> RgbImage:
        """A marked copy of an image (H, W, 3), or (H, W, 4) whose alpha stays as it is."""
        height, width, channels = rgb.shape
        if channels == 4:
            return np.dstack([self.on_rgb(rgb[..., :3]), rgb[..., 3]])
        added = np.repeat(self._pattern(rgb[..., 1]).view(np.int8), 3, 1)
        more, less = (np.maximum(part, 0).view(np.uint8) for part in (added, -added))
        lines = rgb.reshape(height, -1)
        lines = np.maximum(np.minimum(lines, 255 - more) + more, less) - less
        return lines.reshape(height, width, 3)

    def _pattern(self, picture: Plane) -> Plane:
        """What is added to a plane (H, W)."""
        height, width = picture.shape
        made = self._made
        if made is None or made[0].shape != picture.shape:
            made = self._made = self._make(height, width)
        pattern, more = made[0].copy(), made[1]
        inner = height // _BLOCK * _BLOCK
        rows = pattern[:inner].reshape(-1, _BLOCK, width)
        rows += more[:inner].reshape(-1, _BLOCK, width) & _busy(picture)[:, None]
        return pattern

    def _make(self, height: int, width: int) -> tuple[Plane, Plane]:
        tile = make_tile(self._key, self.payload)
        whole = np.tile(tile, (-(-height // SIDE), -(-width // SIDE)))[:height, :width]
        faint, clear = (
            np.rint(strength * whole).astype(np.int8).view(np.uint8) for strength in (FAINT, CLEAR)
        )
        return faint, clear - faint


def _busy(picture: Plane) -> Plane:
    """Which blocks of (H, W) hide much: 255 or 0 for each column of each row of blocks, (H / 8, W)."""
    height, width = (n // _BLOCK for n in picture.shape)
    some = np.ascontiguousarray(picture[: height * _BLOCK : 2, : width * _BLOCK : 2])
    rows = some.reshape(height, _BLOCK // 2, -1)
    columns = (height, width, _BLOCK // 2)
    spread = rows.max(1).reshape(columns).max(2) - rows.min(1).reshape(columns).min(2)
    busy = np.zeros((height, picture.shape[1]), np.uint8)
    busy[:, : width * _BLOCK] = np.repeat(np.where(spread > BUSY, 255, 0), _BLOCK, 1)
    return busy
