"""Image files of unknown origin -> upright sRGB arrays, or a plain reason why not."""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError

from engine.errors import MediaError
from engine.face.image_colour import on_background, without_alpha
from engine.types import RgbImage

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
MAX_SIDE = 2160  # a larger image is scaled down on reading
MIN_SIDE = 64
MAX_ASPECT = 4
MAX_PIXELS = {"JPEG": 260_000_000}  # is read at a reduced size; phones make up to 200 million
OTHER_PIXELS = 110_000_000
# What reading takes at its peak, bytes a pixel, and how much of that a file of so many bytes may ask for: a small
# file that unpacks to a lot is made to harm.
MEMORY = {
    "JPEG": 0.8,
    "PNG": 6.5,
    "BMP": 6,
    "GIF": 8,
    "TIFF": 9,
    "WEBP": 20,
    "AVIF": 14,
    "HEIF": 12,
}
WITH_ALPHA = 5  # so much more
PROGRESSIVE = 7  # a JPEG that comes in several scans, whose coefficients are all kept
MEMORY_A_BYTE = 190
SMALL_FILE = 1_000_000  # bytes; a smaller one may ask for as much
MAX_SCANNED = 600_000_000  # pixels times scans of a progressive JPEG
ON_GREY = "The picture is partly transparent; grey is shown there."
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_UPRIGHT = {  # Exif orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HALF_TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
)
# What Pillow's decoders raise on damaged files; a warning only where the program makes it an error.
# Filters are left alone: they belong to the whole process, and this runs on any thread.
_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError, EOFError,
    ArithmeticError, MemoryError, struct.error, zlib.error, RuntimeError, Warning,
)  # fmt: skip


class BadImage(MediaError):
    """The bytes are no image we can use."""


class ImageTooLarge(MediaError):
    """The image has too many pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What an image file shows: upright, sRGB, at most 2160 pixels a side."""

    rgb: RgbImage  # (H, W, 3), transparent parts laid on the background
    alpha: NDArray[np.uint8] | None = None  # (H, W), 255 is opaque; None: all of it is
    notices: tuple[str, ...] = ()  # sentences for people: what was left out
    size: tuple[int, int] = (0, 0)  # height and width in the file, upright


def decode_image(data: bytes) -> RgbImage:
    """The pixels (H, W, 3) of an image file; as `read_picture`."""
    return read_picture(data).rgb


def read_picture(data: bytes, background: RgbImage | None = None) -> Picture:
    """Read an image file.

    Args:
        background: (h, w, 3) of any size, shown where the image is transparent; grey without one.

    Raises:
        BadImage: not an image, damaged, too small or a mere strip; or HEIC without `pillow-heif`.
        ImageTooLarge: too many pixels, in all or for so small a file; found before they are decoded.
    """
    try:
        with _opened(data) as image:
            _check(image, data)
            return _read(image, background)
    except UnidentifiedImageError:
        raise BadImage("this is not a picture; send a JPEG, PNG, WebP or HEIC file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge("the picture has too many pixels; make it smaller first") from None
    except _DECODER_ERRORS as error:
        raise BadImage(f"the picture is damaged: {str(error)[:200]}") from None


def _opened(data: bytes) -> Image.Image:
    """Open an image by its header."""
    if data.startswith(b"\xff\xd8\xff"):  # directly: the limits are ours, not Pillow's
        return JpegImagePlugin.jpeg_factory(io.BytesIO(data))
    formats: tuple[str, ...] = FORMATS
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ModuleNotFoundError:
            raise BadImage(
                "this is a HEIC picture, which needs one more package: pip install 'portraittalk[heif]'; "
                "or send it as JPEG"
            ) from None
        formats = (*FORMATS, "HEIF")
    return Image.open(io.BytesIO(data), formats=formats)


def _check(image: Image.Image, data: bytes) -> None:
    """Refuse by the header alone."""
    kind = "JPEG" if image.format == "MPO" else image.format or ""
    width, height = image.size
    pixels, size = width * height, f"the picture has {width}x{height} pixels"
    most = MAX_PIXELS.get(kind, OTHER_PIXELS)
    if pixels > most:
        raise ImageTooLarge(f"{size}; {most // 1_000_000} million at most")
    progressive = kind == "JPEG" and "progressive" in image.info
    if progressive and pixels * data.count(b"\xff\xda") > MAX_SCANNED:
        raise ImageTooLarge(f"{size} in too many scans; save it as an ordinary JPEG")
    memory = pixels * (
        PROGRESSIVE if progressive else MEMORY[kind] + WITH_ALPHA * _has_alpha(image)
    )
    if memory > MEMORY_A_BYTE * max(len(data), SMALL_FILE):
        raise ImageTooLarge(
            f"{size}, too many for a file of {-(-len(data) // 1000)} kB; make it smaller first"
        )
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"the picture is {width}x{height}; {MIN_SIDE} pixels a side at least")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"the picture is {width}x{height}; too long a strip for a portrait")


def _read(image: Image.Image, background: RgbImage | None) -> Picture:
    """Decode an open image: its first frame, smaller where it is large."""
    notices = []
    # an MPO is a JPEG with a preview or depth map behind it, as many phones write
    if image.format not in ("MPO", "HEIF") and getattr(image, "is_animated", False):
        what = "page" if image.format == "TIFF" else "frame"
        notices.append(f"The picture has several {what}s; the first one is shown.")
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    sideways = turn is not None and turn not in _HALF_TURNS
    size = image.size if sideways else image.size[::-1]
    image.draft("RGB", (MAX_SIDE, MAX_SIDE))
    small = _plain(image)
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    rgb, alpha, remark = without_alpha(small, image.info.get("icc_profile"))
    if turn is not None:
        rgb, alpha = rgb.transpose(turn), alpha and alpha.transpose(turn)
    notices += [remark] if remark else []
    if alpha is None:
        return Picture(np.array(rgb), None, tuple(notices), size)
    if background is None:
        notices.append(ON_GREY)
    laid = on_background(rgb, alpha, background)
    return Picture(laid, np.array(alpha), tuple(notices), size)


def _plain(image: Image.Image) -> Image.Image:
    """The same picture in a mode of 8 bits a channel that can be scaled: L, RGB, RGBA, CMYK, LAB."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        factor = max(image.size) // MAX_SIDE
        fewer = image.reduce(factor) if factor > 1 else image
        values = np.nan_to_num(np.asarray(fewer, dtype=np.float32))
        top = max(float(values.max()), 1.0)
        values *= 255 / (65_535 if top > 255 else 255 if top > 1 else 1)
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    mode = image.mode if image.mode in ("L", "CMYK", "LAB") else "L" if image.mode == "1" else "RGB"
    mode = "RGBA" if _has_alpha(image) else mode
    if image.mode == mode:
        image.load()
        return image
    return image.convert(mode)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
