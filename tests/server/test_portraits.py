"""Reading untrusted pictures, and the registry."""

from __future__ import annotations

import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from engine.face.image_file import MAX_SIDE, BadImage, ImageTooLarge, decode_image
from server.portraits import PortraitRegistry, encode_jpeg, make_portrait
from tests.server.pictures import ACCEPTED, DAMAGED_EXIF, REFUSED, encoded, photo

RGB = np.full((80, 70, 3), 9, dtype=np.uint8)


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_picture_is_refused_in_plain_words(name: str) -> None:
    wanted = ImageTooLarge if name.startswith("bomb: ") and "text" not in name else BadImage
    with pytest.raises(wanted) as caught:
        decode_image(REFUSED[name]())
    assert 10 < len(str(caught.value)) < 300


def test_there_are_fifty_of_them() -> None:
    assert len(REFUSED) >= 50


@pytest.mark.parametrize("name", ACCEPTED)
def test_every_usual_kind_of_picture_becomes_rgb(name: str) -> None:
    rgb = decode_image(ACCEPTED[name]())
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3
    assert max(rgb.shape) <= MAX_SIDE
    assert rgb.flags.c_contiguous


@pytest.mark.filterwarnings("ignore:::PIL")
def test_a_picture_that_pillow_merely_warns_about_is_read() -> None:
    assert decode_image(DAMAGED_EXIF).shape == (240, 200, 3)


def test_where_warnings_are_errors_it_is_refused_in_our_words() -> None:
    with pytest.raises(BadImage, match="damaged"):
        decode_image(DAMAGED_EXIF)


def test_reading_on_other_threads_leaves_the_filters_of_warnings_alone() -> None:
    before, large = list(warnings.filters), ACCEPTED["large"]()
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(decode_image, large) for _ in range(4)]
        while not all(reader.done() for reader in readers):
            assert warnings.filters == before
            time.sleep(0.0005)
    assert all(reader.result().shape == (1728, 2160, 3) for reader in readers)
    assert warnings.filters == before


def test_sixteen_bits_keep_their_brightness() -> None:
    grey = decode_image(ACCEPTED["16 bit png"]())
    assert grey[0, 0, 0] == 0
    assert abs(int(grey[0, 199, 0]) - 199 * 300 // 257) <= 2


def test_what_is_transparent_becomes_grey_not_black() -> None:
    image = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    assert (decode_image(encoded(image)) == 128).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_taken_in_any_orientation_stands_upright(orientation: int) -> None:
    upright = Image.new("RGB", (120, 160), (0, 0, 255))
    upright.paste((255, 0, 0), (0, 0, 60, 40))  # red in the corner at the top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if undo is None else upright.transpose(undo)
    rgb = decode_image(encoded(stored, "JPEG", exif=exif.tobytes(), quality=95))
    assert rgb.shape == (160, 120, 3)
    assert rgb[10, 10, 0] > 200
    assert rgb[150, 110, 2] > 200


def test_a_portrait_is_given_back_without_its_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    rgb = decode_image(encoded(photo(), "JPEG", exif=exif.tobytes()))
    assert b"where I live" not in encode_jpeg(rgb)


def test_the_bundled_portrait_comes_first_and_uploads_are_listed_to_nobody() -> None:
    registry = PortraitRegistry(kept=2)
    upload = make_portrait("Upload", RGB, "identity")
    registry.add(upload)
    registry.add(make_portrait("Astronaut", RGB, "bundled", default=True))
    assert [p.id for p in registry.listed()] == ["default"]
    assert registry.get(upload.id) is upload
    assert (upload.width, upload.height) == (70, 80)
    assert len(upload.id) > 12


def test_the_least_recently_used_upload_goes_the_bundled_one_stays() -> None:
    registry = PortraitRegistry(kept=2)
    registry.add(make_portrait("Astronaut", RGB, "bundled", default=True))
    first, second, third = (make_portrait("Upload", RGB, i) for i in range(3))
    registry.add(first)
    registry.add(second)
    registry.get(first.id)
    registry.add(third)
    assert registry.get(second.id) is None
    assert registry.get(first.id) is first
    assert registry.get(third.id) is third
    assert registry.get("default") is not None


def test_an_unknown_portrait_is_none() -> None:
    assert PortraitRegistry(kept=1).get("p-nobody") is None
    assert PortraitRegistry(kept=1).get("default") is None
