"""Pictures are read true to their file: colours, grey, transparency, size, and what is said about it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.colour_profiles import SPACES, in_space, profile
from engine.errors import ConfigError
from engine.face.image_colour import plain_colour
from engine.face.image_file import MAX_SIDE, BadImage, ImageTooLarge, read_picture

ASTRONAUT = Path(__file__).parents[3] / "server" / "data" / "astronaut.png"


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.asarray(Image.open(ASTRONAUT).convert("RGB"))[:256, 100:356]


@pytest.mark.parametrize("space", SPACES)
def test_a_colour_profile_is_converted_to_srgb(space: str, rgb: np.ndarray) -> None:
    stored = in_space(rgb, space)
    assert np.abs(stored.astype(int) - rgb).mean() > 2, "the file says other numbers"
    picture = read_picture(encoded(Image.fromarray(stored), icc_profile=profile(space)))
    off = np.abs(picture.rgb.astype(int) - rgb)
    assert off.mean() < 0.4
    assert off.max() <= 3  # rounded to 8 bits twice
    assert picture.notices == ()


@pytest.mark.parametrize("space", ["Display P3", "ProPhoto"])
@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
def test_grey_stays_grey_whatever_the_profile(space: str, mode: str, rgb: np.ndarray) -> None:
    grey = Image.fromarray(rgb[..., 1]).convert(mode)
    got = read_picture(encoded(grey, icc_profile=profile(space))).rgb
    np.testing.assert_array_equal(got[..., 0], got[..., 1])
    np.testing.assert_array_equal(got[..., 0], got[..., 2])
    assert got.std() > 20


def test_a_profile_that_cannot_be_used_is_said(rgb: np.ndarray) -> None:
    picture = read_picture(encoded(Image.fromarray(rgb), icc_profile=b"junk" * 40))
    assert "profile" in picture.notices[0]
    np.testing.assert_array_equal(picture.rgb, rgb)


def test_transparent_parts_show_the_background_and_the_mask_is_kept(rgb: np.ndarray) -> None:
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    alpha[:, 64:192] = 255
    file = encoded(Image.fromarray(np.dstack([rgb, alpha])))
    grey = read_picture(file)
    assert (grey.rgb[:, :64] == 128).all()
    assert "transparent" in grey.notices[0]
    green = read_picture(file, plain_colour("#20a040"))
    assert (green.rgb[:, 200:] == (0x20, 0xA0, 0x40)).all()
    assert green.notices == ()
    np.testing.assert_array_equal(green.rgb[:, 64:192], rgb[:, 64:192])
    np.testing.assert_array_equal(green.alpha, alpha)
    scene = np.zeros((30, 20, 3), np.uint8)
    scene[:15, :, 0] = 200
    behind = read_picture(file, scene).rgb
    assert behind[10, 10, 0] > 180
    assert behind[-10, 10, 0] < 20


def test_an_opaque_alpha_channel_is_none(rgb: np.ndarray) -> None:
    assert read_picture(encoded(Image.fromarray(rgb).convert("RGBA"))).alpha is None


def test_a_background_that_is_neither_colour_nor_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="#20a040"):
        plain_colour("bluish")


def test_the_first_frame_is_shown_and_that_is_said(rgb: np.ndarray) -> None:
    first, second = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    picture = read_picture(
        encoded(first, "WEBP", lossless=True, save_all=True, append_images=[second])
    )
    np.testing.assert_array_equal(picture.rgb, rgb)
    assert picture.notices == ("The picture has several frames; the first one is shown.",)


def test_sixteen_bits_a_channel_keep_their_colour(rgb: np.ndarray) -> None:
    deep = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_picture(encoded(deep)).rgb[..., 1], rgb[..., 0])


def test_a_photo_of_48_million_pixels_is_read_at_a_reduced_size() -> None:
    photo = encoded(Image.new("RGB", (8064, 6048), (200, 120, 40)), "JPEG", quality=85)
    picture = read_picture(photo)
    assert max(picture.rgb.shape) == MAX_SIDE
    assert np.abs(picture.rgb[5, 5].astype(int) - (200, 120, 40)).max() <= 3


@pytest.mark.parametrize(
    ("kind", "million", "options"),
    [("PNG", 30, {}), ("WEBP", 10, {"method": 0}), ("TIFF", 22, {"compression": "tiff_lzw"})],
)
def test_a_small_file_may_not_unpack_to_a_lot(
    kind: str, million: int, options: dict[str, object]
) -> None:
    file = encoded(Image.new("L", (4000, million * 250)), kind, **options)
    assert len(file) < 1_000_000
    with pytest.raises(ImageTooLarge, match="kB"):
        read_picture(file)


def test_heic_is_read(rgb: np.ndarray) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    stored = Image.fromarray(in_space(rgb, "Display P3"))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    file = encoded(
        stored, "HEIF", quality=95, icc_profile=profile("Display P3"), exif=exif.tobytes()
    )
    picture = read_picture(file)
    upright = np.rot90(rgb, -1)
    assert np.abs(picture.rgb.astype(int) - upright).mean() < 3


def test_heic_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    with pytest.raises(BadImage, match=r"portraittalk\[heif\]"):
        read_picture(b"\x00\x00\x00\x18ftypheic" + bytes(500))
