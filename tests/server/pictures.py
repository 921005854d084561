"""Hostile and harmless image files, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image


def photo(width: int = 200, height: int = 240, mode: str = "RGB") -> Image.Image:
    """A picture with some detail."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The file of a picture."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    """One PNG chunk with a right checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header may promise anything."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + body


def animated(kind: str) -> bytes:
    """Three different frames."""
    frames = [photo().rotate(30 * i) for i in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def cut(data: bytes, share: float) -> bytes:
    """The first part of a file."""
    return data[: int(len(data) * share)]


def garbled(data: bytes, seed: int) -> bytes:
    """A file whose second half is noise."""
    half = len(data) // 2
    return data[:half] + np.random.default_rng(seed).bytes(len(data) - half)


_JPEG = encoded(photo(), "JPEG")
_PNG = encoded(photo())
_WEBP = encoded(photo(), "WEBP")
_BMP = encoded(photo(), "BMP")

# Pillow warns about it and reads it all the same.
DAMAGED_EXIF = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")

# A scan takes few bytes and much time: here the last of a progressive file, again and again.
_SCANS = encoded(photo(1200, 1200), "JPEG", progressive=True)
_LAST = _SCANS[_SCANS.rindex(b"\xff\xda") : -2]
_JPEG_OF_MANY_SCANS = _SCANS[:-2] + (b"\xff\xda" + _LAST[2:40]) * 2000 + b"\xff\xd9"

REFUSED: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "one byte": lambda: b"\xff",
    "zeros": lambda: bytes(5000),
    "noise": lambda: np.random.default_rng(0).bytes(5000),
    "words": lambda: b"hello, I am a picture " * 50,
    "html": lambda: b"<html><body><img src=x></body></html>" * 20,
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="200" height="200"></svg>',
    "svg with an entity bomb": lambda: b'<!DOCTYPE s [<!ENTITY a "aaaa">]><svg>&a;</svg>',
    "json": lambda: b'{"image": "/etc/passwd"}',
    "pdf": lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer<<>>\n%%EOF",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\nshowpage\n",
    "zip": lambda: b"PK\x03\x04" + bytes(500),
    "elf": lambda: b"\x7fELF" + bytes(500),
    "wav": lambda: b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(100),
    "mp4": lambda: b"\x00\x00\x00\x18ftypmp42" + bytes(500),
    "heic by its name": lambda: b"\x00\x00\x00\x18ftypheic" + bytes(500),
    "a png signature": lambda: b"\x89PNG\r\n\x1a\n",
    "a jpeg signature": lambda: b"\xff\xd8\xff\xe0",
    "a webp signature": lambda: b"RIFF\x00\x10\x00\x00WEBPVP8 ",
    "a bmp signature": lambda: b"BM" + bytes(60),
    "a gif signature": lambda: b"GIF89a" + bytes(20),
    "a tiff signature": lambda: b"II*\x00\x08\x00\x00\x00" + bytes(4),
    "a text as png": lambda: b"\x89PNG\r\n\x1a\n" + b"text " * 200,
    "jpeg cut at 10 %": lambda: cut(_JPEG, 0.1),
    "jpeg cut in half": lambda: cut(_JPEG, 0.5),
    "jpeg cut at 95 %": lambda: cut(_JPEG, 0.95),
    "png cut in half": lambda: cut(_PNG, 0.5),
    "png cut at 95 %": lambda: cut(_PNG, 0.95),
    "webp cut in half": lambda: cut(_WEBP, 0.5),
    "png with noise": lambda: garbled(_PNG, 1),
    "webp with noise in its header": lambda: _WEBP[:12] + garbled(_WEBP[12:60], 2),
    "tiff with noise": lambda: garbled(encoded(photo(), "TIFF", compression="tiff_lzw"), 3)[:400],
    "png of nothing": lambda: png(200, 200, b""),
    "png without width": lambda: png(0, 200, b""),
    "png with a wrong checksum": lambda: _PNG[:30] + bytes([_PNG[30] ^ 1]) + _PNG[31:],
    "png with an impossible depth": lambda: png(200, 200, bytes(601 * 200), depth=7),
    "png with an impossible colour": lambda: png(200, 200, bytes(601 * 200), colour=9),
    "bomb: 30000 x 30000 zeros": lambda: png(30_000, 30_000, bytes(100_000)),
    "bomb: 65535 x 65535": lambda: png(65_535, 65_535, bytes(1000)),
    "bomb: 2 billion a side": lambda: png(0x7FFFFFFF, 0x7FFFFFFF, bytes(1000)),
    "bomb: 7000 x 7000 real pixels": lambda: encoded(Image.new("L", (7000, 7000))),
    "bomb: jpeg 65000 x 65000 by its header": lambda: _JPEG.replace(
        struct.pack(">HH", 240, 200), struct.pack(">HH", 65_000, 65_000), 1
    ),
    "bomb: bmp 50000 x 50000 by its header": lambda: (
        _BMP[:18] + struct.pack("<ii", 50_000, 50_000) + _BMP[26:]
    ),
    "bomb: a text chunk that unpacks to 80 MB": lambda: (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 200, 200, 8, 2, 0, 0, 0))
        + png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
        + png_chunk(b"IEND", b"")
    ),
    "bomb: 22 million floats in a small tiff": lambda: encoded(
        Image.new("F", (5000, 4400)), "TIFF", compression="tiff_adobe_deflate"
    ),
    "bomb: a jpeg of 2000 scans": lambda: _JPEG_OF_MANY_SCANS,
    "avif cut in half": lambda: cut(encoded(photo(), "AVIF"), 0.5),
    "an avif signature": lambda: b"\x00\x00\x00\x18ftypavif" + bytes(500),
    "one pixel": lambda: encoded(photo(1, 1)),
    "63 pixels": lambda: encoded(photo(63, 63)),
    "a line": lambda: encoded(photo(2000, 1)),
    "a strip": lambda: encoded(photo(1000, 100)),
    "icon file": lambda: encoded(photo(), "ICO"),
    "targa file": lambda: encoded(photo(), "TGA"),
}

ACCEPTED: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: _JPEG,
    "png": lambda: _PNG,
    "webp": lambda: _WEBP,
    "bmp": lambda: _BMP,
    "png whose last rows are missing": lambda: png(200, 200, bytes(601 * 10)),
    "still gif": lambda: encoded(photo(), "GIF"),
    "tiff": lambda: encoded(photo(), "TIFF"),
    "progressive jpeg": lambda: encoded(photo(), "JPEG", progressive=True),
    "grey jpeg": lambda: encoded(photo(mode="L"), "JPEG"),
    "cmyk jpeg": lambda: encoded(photo(mode="CMYK"), "JPEG"),
    "jpeg of a phone, with a second picture": lambda: encoded(
        photo(), "MPO", save_all=True, append_images=[photo(50, 60)]
    ),
    "palette png": lambda: encoded(photo(mode="P")),
    "black and white png": lambda: encoded(photo(mode="1")),
    "16 bit png": lambda: encoded(
        Image.fromarray((np.mgrid[:240, :200][1] * 300).astype(np.uint16))
    ),
    "32 bit tiff": lambda: encoded(
        Image.fromarray((np.mgrid[:240, :200][1] * 300).astype(np.int32)), "TIFF"
    ),
    "float tiff with nan": lambda: encoded(
        Image.fromarray(np.where(np.eye(240, 200) > 0, np.nan, 0.5).astype(np.float32)), "TIFF"
    ),
    "png with alpha": lambda: encoded(photo(mode="RGBA")),
    "grey png with alpha": lambda: encoded(photo(mode="LA")),
    "animated gif": lambda: animated("GIF"),
    "animated png": lambda: animated("PNG"),
    "animated webp": lambda: animated("WEBP"),
    "tiff of three pages": lambda: animated("TIFF"),
    "avif": lambda: encoded(photo(), "AVIF"),
    "avif with alpha": lambda: encoded(photo(mode="RGBA"), "AVIF"),
    "cmyk tiff": lambda: encoded(photo(mode="CMYK"), "TIFF"),
    "lab tiff": lambda: encoded(photo(mode="LAB"), "TIFF"),
    "palette gif with alpha": lambda: encoded(photo(mode="P"), "GIF", transparency=3),
    "png with junk behind it": lambda: _PNG + bytes(1000),
    "jpeg with a damaged profile": lambda: encoded(photo(), "JPEG", icc_profile=b"junk" * 10),
    "large": lambda: encoded(photo(3000, 2400), "JPEG"),
}
