"""The colours of a Pillow image: its profile -> sRGB, grey kept grey, transparency on a background."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from engine.errors import ConfigError
from engine.types import RgbImage

GREY = (128, 128, 128)  # behind transparent pixels
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


def without_alpha(
    image: Image.Image, profile: bytes | None
) -> tuple[Image.Image, Image.Image | None, str]:
    """Split an image (L, RGB, RGBA, CMYK or LAB) whose colours are those of an ICC profile.

    Returns:
        the picture as sRGB, grey where it was grey all over; its alpha, None where all is opaque;
        a sentence for people where the profile could not be used, else "".
    """
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if image.mode == "RGBA" else image
    if alpha is not None and alpha.getextrema() == (255, 255):
        alpha = None
    grey = colours.mode == "L" or (colours.mode == "RGB" and _is_grey(colours))
    rgb, remark = _to_srgb(colours, profile, grey=grey)
    return (rgb.convert("L").convert("RGB") if grey else rgb), alpha, remark


def on_background(rgb: Image.Image, alpha: Image.Image, background: RgbImage | None) -> RgbImage:
    """Lay an image over `background` (h, w, 3), cropped to its shape, or over grey: (H, W, 3)."""
    if background is None:
        below = Image.new("RGB", rgb.size, GREY)
    else:
        below = ImageOps.fit(Image.fromarray(background), rgb.size, Image.Resampling.LANCZOS)
    return np.array(Image.composite(rgb, below, alpha))


def plain_colour(name: str) -> RgbImage:
    """A colour such as "white" or "#20a040" as an image (1, 1, 3).

    Raises:
        ConfigError: it is no colour.
    """
    try:
        colour = ImageColor.getcolor(name, "RGB")
    except ValueError:
        raise ConfigError(
            f"{name!r} is neither a picture nor a colour, as white or #20a040"
        ) from None
    return np.array([[colour]], np.uint8)


def _is_grey(rgb: Image.Image) -> bool:
    values = np.asarray(rgb)
    return bool((values[..., 1:] == values[..., :1]).all())


def _to_srgb(image: Image.Image, profile: bytes | None, *, grey: bool) -> tuple[Image.Image, str]:
    """Convert by the profile where there is one that fits; the sentence where it does not."""
    remark = ""
    if profile is not None or image.mode == "LAB":
        try:
            own = ImageCms.ImageCmsProfile(
                ImageCms.createProfile("LAB") if image.mode == "LAB" else io.BytesIO(profile or b"")
            )
            if grey and own.profile.xcolor_space.strip() == "RGB":
                image = image.convert("RGB")
            made = ImageCms.profileToProfile(image, own, _SRGB, _INTENT, "RGB", flags=_FLAGS)
            if made is not None:
                return made, ""
        except (ImageCms.PyCMSError, OSError, ValueError):
            remark = "The picture's colour profile cannot be used; colours may be off."
    return image.convert("RGB"), remark
