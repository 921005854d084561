"""Who is shown in a video: what cannot be meant is one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
