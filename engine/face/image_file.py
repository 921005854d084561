"""Image files of unknown origin -> upright RGB arrays, or a plain reason why not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from engine.errors import MediaError
from engine.types import RgbImage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 40_000_000
MAX_SIDE = 2048  # a larger image is scaled down on reading
MIN_SIDE = 64
MAX_ASPECT = 4
_BACKGROUND = (128, 128, 128)  # behind transparent pixels
_UPRIGHT = {  # Exif orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on damaged files; a warning only where the program makes it an error.
# Filters are left alone: they belong to the whole process, and this runs on any thread.
_DECODER_ERRORS = (
    OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError,
    ArithmeticError, MemoryError, struct.error, zlib.error, Warning,
)  # fmt: skip


class BadImage(MediaError):
    """The bytes are no image we can use."""


class ImageTooLarge(MediaError):
    """The image has too many pixels."""


def decode_image(data: bytes) -> RgbImage:
    """Read an image file as (H, W, 3), upright, at most 2048 pixels a side.

    Raises:
        BadImage: not an image, damaged, animated, too small or a mere strip.
        ImageTooLarge: more than 40 million pixels; found before they are decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image)
            turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))
            rgb = _to_rgb(image)
            rgb.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
            return np.array(rgb if turn is None else rgb.transpose(turn))
    except UnidentifiedImageError:
        raise BadImage("this is not a picture; send a JPEG, PNG or WebP file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge("the picture has too many pixels; 40 million at most") from None
    except _DECODER_ERRORS as error:
        raise BadImage(f"the picture is damaged: {str(error)[:200]}") from None


def _check(image: Image.Image) -> None:
    """Refuse by the header alone."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(f"the picture has {width}x{height} pixels; 40 million at most")
    stills = ("MPO",)  # a JPEG with a preview or depth map behind it, as many phones write
    if image.format not in stills and getattr(image, "n_frames", 1) > 1:
        raise BadImage("the picture is animated or has several pages; send a still one")
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"the picture is {width}x{height}; {MIN_SIDE} pixels a side at least")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"the picture is {width}x{height}; too long a strip for a portrait")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        top = max(float(values.max()), 1.0)
        scale = 255 / (65_535 if top > 255 else 255 if top > 1 else 1)
        grey = np.clip(values * scale, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        rgb = Image.new("RGB", rgba.size, _BACKGROUND)
        rgb.paste(rgba, mask=rgba.getchannel("A"))
        return rgb
    return image.convert("RGB")
