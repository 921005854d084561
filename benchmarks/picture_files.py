"""Forty picture files as people send them, made of the bundled portrait: formats, colours, sizes, troubles."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.colour_profiles import in_space, profile
from server.settings import BUNDLED_PORTRAIT

U8 = NDArray[np.uint8]
ACCEPTED, SAID, REFUSED = "accepted", "said", "refused"
TURN, MIRROR_TURN = 6, 5  # Exif orientations


@dataclass(frozen=True, slots=True)
class PictureFile:
    """One file, what should become of it, and how it is asked for."""

    name: str
    make: Callable[[], bytes]
    wanted: str = ACCEPTED
    why: str = ""  # a part of the notice or of the refusal
    true_colours: bool = False  # the pixels should be the portrait's
    face: int | None = None
    background: str = ""


@functools.cache
def portrait() -> Image.Image:
    """The bundled portrait, RGB, 512 x 512."""
    return Image.open(BUNDLED_PORTRAIT).convert("RGB")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file of a picture."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def sized(width: int, height: int) -> Image.Image:
    """The portrait, stretched to a size of the camera's."""
    side = max(width, height)
    square = portrait().resize((side, side), Image.Resampling.BICUBIC)
    return square.crop((0, 0, width, height))


def grey() -> Image.Image:
    """The portrait without colour."""
    return portrait().convert("L")


def cut_out() -> Image.Image:
    """The portrait before nothing: RGBA."""
    alpha = Image.new("L", portrait().size)
    pen = ImageDraw.Draw(alpha)
    pen.ellipse((150, 20, 310, 220), fill=255)
    pen.rounded_rectangle((60, 190, 440, 620), 80, fill=255)
    image = portrait().convert("RGBA")
    image.putalpha(alpha.filter(ImageFilter.GaussianBlur(2)))
    return image


def deep_png(rgb: U8, channels: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write in colour."""
    height, width = rgb.shape[:2]
    values = (rgb[..., :channels].astype(">u2") * 257).reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def turned(orientation: int, undo: Image.Transpose) -> bytes:
    """A JPEG that only its Exif data stand upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(portrait().transpose(undo), "JPEG", quality=95, exif=exif.tobytes())


def before_the_mouth(draw: Callable[[ImageDraw.ImageDraw], None]) -> bytes:
    """The portrait at 1,024 pixels with something drawn over it."""
    image = portrait().resize((1024, 1024), Image.Resampling.LANCZOS)
    laid = image.copy()
    draw(ImageDraw.Draw(laid))
    return encoded(
        Image.blend(image, laid.filter(ImageFilter.GaussianBlur(1)), 1.0), "JPEG", quality=92
    )


def _mask(pen: ImageDraw.ImageDraw) -> None:
    outline = [
        (362, 250),
        (452, 216),
        (542, 252),
        (536, 320),
        (500, 362),
        (452, 380),
        (404, 360),
        (370, 320),
    ]
    pen.polygon(outline, fill=(176, 205, 222))
    for y in (268, 292, 316):
        pen.line([(372, y), (452, y + 8), (534, y)], fill=(150, 182, 204), width=3)
    pen.line([(362, 254), (326, 220)], fill=(235, 235, 235), width=4)
    pen.line([(542, 254), (566, 226)], fill=(235, 235, 235), width=4)


def _microphone(pen: ImageDraw.ImageDraw) -> None:
    pen.line([(456, 330), (560, 620)], fill=(40, 40, 44), width=44)
    pen.ellipse((400, 232, 512, 348), fill=(58, 58, 62))
    for step in range(0, 64, 9):
        pen.line([(424 + step, 250), (428 + step, 332)], fill=(84, 84, 88), width=2)
    pen.ellipse((424, 248, 452, 272), fill=(120, 120, 124))


def _hand(pen: ImageDraw.ImageDraw) -> None:
    for i, length in enumerate((150, 178, 186, 160)):
        y = 236 + i * 30
        pen.line([(560, y + 60), (560 - length, y)], fill=(150, 96, 76), width=36)
        pen.line([(560, y + 58), (564 - length, y)], fill=(206, 150, 124), width=30)
        pen.ellipse((548 - length, y - 15, 578 - length, y + 15), fill=(206, 150, 124))
    pen.polygon([(530, 250), (700, 330), (700, 480), (540, 420)], fill=(200, 144, 118))


def open_wide() -> bytes:
    """The portrait with its jaw dropped: the lower lip and the chin moved down, dark between the lips."""
    image = portrait().resize((1024, 1024), Image.Resampling.LANCZOS)
    jaw, soft = image.crop((350, 299, 540, 380)), Image.new("L", (190, 81))
    ImageDraw.Draw(soft).rounded_rectangle((14, 0, 176, 70), 40, fill=255)
    ImageDraw.Draw(soft).rectangle((40, 0, 150, 30), fill=255)
    image.paste(jaw, (350, 359), soft.filter(ImageFilter.GaussianBlur(5)))
    pen = ImageDraw.Draw(image)
    pen.polygon(
        [
            (408, 292),
            (448, 289),
            (486, 292),
            (494, 330),
            (470, 364),
            (446, 370),
            (424, 364),
            (400, 330),
        ],
        fill=(38, 14, 16),
    )
    pen.chord((414, 276, 482, 312), 0, 180, fill=(222, 214, 204))
    pen.ellipse((420, 342, 474, 368), fill=(140, 66, 70))
    return encoded(image.filter(ImageFilter.GaussianBlur(0.8)), "JPEG", quality=92)


def pair() -> bytes:
    """Two people side by side, the right one larger."""
    head = portrait().crop((100, 0, 356, 256))
    scene = Image.new("RGB", (1100, 600), (126, 130, 136))
    scene.paste(head.resize((420, 420), Image.Resampling.LANCZOS), (60, 100))
    mirrored = head.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scene.paste(mirrored.resize((560, 560), Image.Resampling.LANCZOS), (520, 20))
    return encoded(scene, "JPEG", quality=92)


def placed(width: int, height: int, scale: float) -> bytes:
    """The portrait, so much larger or smaller, somewhere in a scene."""
    scene = Image.effect_noise((width, height), 12).convert("RGB")
    small = portrait().crop((60, 0, 400, 512))
    small = small.resize((round(340 * scale), round(512 * scale)), Image.Resampling.LANCZOS)
    scene.paste(small, ((width - small.width) // 2, int(height * 0.3)))
    return encoded(scene, "JPEG", quality=90)


def heic(image: Image.Image, **options: object) -> bytes:
    """An iPhone's format; needs `pillow-heif`."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    return encoded(image, "HEIF", quality=88, **options)


def _in(space: str, kind: str, **options: object) -> bytes:
    stored = Image.fromarray(in_space(np.asarray(portrait()), space))
    return encoded(stored, kind, icc_profile=profile(space), **options)


def _frames(kind: str, **options: object) -> bytes:
    more = [portrait().rotate(angle) for angle in (5, 10)]
    return encoded(portrait(), kind, save_all=True, append_images=more, **options)


def _cut(bottom: int) -> bytes:
    return encoded(portrait().resize((1024, 1024)).crop((200, 0, 760, bottom)), "JPEG", quality=92)


T, Q = True, {"quality": 95}
FILES = (
    PictureFile("PNG", lambda: encoded(portrait(), "PNG"), true_colours=T),
    PictureFile("JPEG", lambda: encoded(portrait(), "JPEG", **Q), true_colours=T),
    PictureFile("Display P3, JPEG", lambda: _in("Display P3", "JPEG", **Q), true_colours=T),
    PictureFile("AdobeRGB, JPEG", lambda: _in("AdobeRGB", "JPEG", **Q), true_colours=T),
    PictureFile("ProPhoto, PNG", lambda: _in("ProPhoto", "PNG"), true_colours=T),
    PictureFile("swapped channels, PNG", lambda: _in("swapped", "PNG"), true_colours=T),
    PictureFile(
        "damaged profile",
        lambda: encoded(portrait(), "PNG", icc_profile=b"x" * 200),
        SAID,
        "profile",
        T,
    ),
    PictureFile("grey JPEG", lambda: encoded(grey(), "JPEG", **Q)),
    PictureFile(
        "grey, ProPhoto",
        lambda: encoded(grey().convert("RGB"), "PNG", icc_profile=profile("ProPhoto")),
    ),
    PictureFile("16-bit PNG, colour", lambda: deep_png(np.asarray(portrait()), 3), true_colours=T),
    PictureFile("16-bit PNG, grey", lambda: deep_png(np.asarray(grey().convert("RGB")), 1)),
    PictureFile(
        "float TIFF", lambda: encoded(Image.fromarray(np.asarray(grey(), np.float32) / 255), "TIFF")
    ),
    PictureFile("CMYK JPEG", lambda: encoded(portrait().convert("CMYK"), "JPEG", **Q)),
    PictureFile("LAB TIFF", lambda: encoded(portrait().convert("LAB"), "TIFF"), true_colours=T),
    PictureFile("palette GIF", lambda: encoded(portrait().quantize(256), "GIF")),
    PictureFile("animated GIF", lambda: _frames("GIF"), SAID, "several frames"),
    PictureFile("animated WebP", lambda: _frames("WEBP", quality=95), SAID, "several frames", T),
    PictureFile("TIFF of three pages", lambda: _frames("TIFF"), SAID, "several pages", T),
    PictureFile("phone's MPO", lambda: _frames("MPO", quality=95), true_colours=T),
    PictureFile("WebP", lambda: encoded(portrait(), "WEBP", **Q), true_colours=T),
    PictureFile("AVIF", lambda: encoded(portrait(), "AVIF", **Q), true_colours=T),
    PictureFile(
        "HEIC, P3, turned",
        lambda: heic(
            Image.fromarray(in_space(np.asarray(portrait().rotate(90)), "Display P3")),
            icc_profile=profile("Display P3"),
            exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
        ),
        true_colours=T,
    ),
    PictureFile("Exif: turned", lambda: turned(TURN, Image.Transpose.ROTATE_90), true_colours=T),
    PictureFile(
        "Exif: mirrored, turned",
        lambda: turned(MIRROR_TURN, Image.Transpose.TRANSPOSE),
        true_colours=T,
    ),
    PictureFile("transparent PNG", lambda: encoded(cut_out(), "PNG"), SAID, "transparent"),
    PictureFile("transparent, on green", lambda: encoded(cut_out(), "PNG"), background="#30a050"),
    PictureFile("12 Mpx HEIC", lambda: heic(sized(4032, 3024))),
    PictureFile("48 Mpx JPEG", lambda: encoded(sized(8064, 6048), "JPEG", quality=88)),
    PictureFile(
        "48 Mpx progressive",
        lambda: encoded(sized(8064, 6048), "JPEG", quality=92, progressive=True),
    ),
    PictureFile(
        "22 Mpx of floats in 100 kB",
        lambda: encoded(Image.new("F", (5000, 4400)), "TIFF", compression="tiff_adobe_deflate"),
        REFUSED,
        "too many for a file",
    ),
    PictureFile("full figure, 3,000 px", lambda: placed(2000, 3000, 1.5), SAID, "pixels high"),
    PictureFile("face of 60 px", lambda: placed(700, 500, 0.5), REFUSED, "pixels high"),
    PictureFile("two faces", pair, SAID, "2 faces"),
    PictureFile("two faces, --face 1", pair, face=1),
    PictureFile("mask", lambda: before_the_mouth(_mask), REFUSED, "before it"),
    PictureFile("microphone", lambda: before_the_mouth(_microphone), REFUSED, "covered"),
    PictureFile("hand", lambda: before_the_mouth(_hand), REFUSED, "covered"),
    PictureFile("cut through the mouth", lambda: _cut(284), REFUSED, "No face"),
    PictureFile("wide-open mouth", open_wide, REFUSED, "wide open"),
    PictureFile(
        "half a JPEG", lambda: encoded(portrait(), "JPEG", **Q)[:20_000], REFUSED, "damaged"
    ),
)
