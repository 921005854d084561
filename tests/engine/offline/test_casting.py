"""Who is shown in a video: what cannot be meant is one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from engine.errors import ConfigError, MediaError
from engine.offline.casting import Casting, cast, read_mix


def test_a_mix_is_an_image_and_a_share() -> None:
    assert read_mix("people/c.jpg:0.4") == (Path("people/c.jpg"), 0.4)
    assert read_mix("C:/c.jpg:.5")[1] == 0.5
    for text in ("c.jpg", "c.jpg:1", "c.jpg:0", "c.jpg:much", ":0.4"):
        with pytest.raises(ConfigError, match=r"c\.jpg:0\.4"):
            read_mix(text)


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_that_seeds_nothing_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match=f"seed={seed} is out of range"):
        Casting(portraits=[], seed=seed)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "me.jpg").write_bytes(b"no image")
    with pytest.raises(MediaError, match=r"me\.jpg: this is not a picture"):
        cast([tmp_path / "me.jpg"], [], "", 0)
    with pytest.raises(MediaError, match=r"no file .*you\.jpg"):
        cast([], [f"{tmp_path / 'you.jpg'}:0.4"], "", 0)


def test_people_mixed_in_leave_something_of_the_portrait() -> None:
    half = np.zeros((64, 64, 3), np.uint8), 0.5
    assert len(Casting(portraits=[half[0]], mixed=[half]).mixed) == 1
    with pytest.raises(ConfigError, match="add up to 1; below 1 in all"):
        Casting(portraits=[half[0]], mixed=[half, half])


def test_a_cut_out_is_laid_on_nothing_yet_where_the_profile_moves_alpha(tmp_path: Path) -> None:
    picture = np.full((80, 96, 4), (10, 20, 30, 255), np.uint8)
    picture[:40, :, 3] = 0
    Image.fromarray(picture).save(tmp_path / "me.png")
    cut = cast([tmp_path / "me.png"], [], "", 0, background="#0000ff", cut_out=True)
    assert cut.alpha is not None
    assert cut.background is not None
    assert (cut.alpha == picture[..., 3]).all()
    assert (cut.portraits[0][:40] == 128).all()
    assert (cut.background == (0, 0, 255)).all()
    assert not cast([tmp_path / "me.png"], [], "", 0, cut_out=True).notices
    laid = cast([tmp_path / "me.png"], [], "", 0, background="#0000ff")
    assert laid.alpha is None
    assert laid.background is None
    assert (laid.portraits[0][:40] == (0, 0, 255)).all()
    assert "grey is shown there" in cast([tmp_path / "me.png"], [], "", 0).notices[0]


def test_a_background_that_shows_nowhere_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (96, 80)).save(tmp_path / "me.png")
    [notice] = cast([tmp_path / "me.png"], [], "", 0, background="white", cut_out=True).notices
    assert "shows nowhere" in notice


def test_the_size_of_the_file_is_known_upright(tmp_path: Path) -> None:
    sideways = Image.Exif()
    sideways[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (2400, 1200)).save(tmp_path / "me.jpg", exif=sideways)
    casting = cast([tmp_path / "me.jpg"], [], "", 0)
    assert casting.size == (2400, 1200)
    assert casting.portraits[0].shape == (2160, 1080, 3)
