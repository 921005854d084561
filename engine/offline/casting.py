"""Who is shown in a video, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.checks import check_seed
from engine.errors import ConfigError, MediaError
from engine.face.image_colour import plain_colour
from engine.face.image_file import ON_GREY, Picture, read_picture
from engine.types import RgbImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Casting:
    """Who is shown, and how: the portraits of one person, and other people mixed in."""

    portraits: Sequence[RgbImage]  # (H, W, 3); the first is what the face moves from
    face: int | None = None  # which face of the first one, counted from the left; the largest
    alpha: NDArray[np.uint8] | None = None  # (H, W) of the first one, which lies on grey
    background: RgbImage | None = None  # (h, w, 3) of any size, for behind it
    size: tuple[int, int] | None = None  # height and width of the first one's file
    notices: Sequence[str] = ()  # what reading the files had to say
    mixed: Sequence[tuple[RgbImage, float]] = ()
    prompt: str = ""  # such as "smile 0.6, brows up"
    seed: int = 0  # the same seed gives the same frames

    def __post_init__(self) -> None:
        check_seed(self.seed)
        shares = sum(share for _, share in self.mixed)
        if not 0 <= shares < 1:
            raise ConfigError(
                f"the shares of the people mixed in add up to {shares:g}; below 1 in all, the rest "
                "is the portrait's"
            )


def cast(
    portraits: Sequence[Path],
    mix: Sequence[str],
    prompt: str,
    seed: int,
    *,
    face: int | None = None,
    background: str = "",
    cut_out: bool = False,
) -> Casting:
    """Who is shown in a video, saying it how; `mix` as `read_mix` takes it.

    Args:
        face: which face of the first portrait, counted from the left; the largest without it.
        background: a colour or an image file, shown where a portrait is transparent; "" for grey.
        cut_out: the profile moves the alpha of a portrait along: it is laid on nothing yet.

    Raises:
        ConfigError: a mix or a background is not written so, or the seed is out of range.
        MediaError: an image is missing or cannot be read; the message names it.
    """
    check_seed(seed)
    shares = [read_mix(text) for text in mix]
    behind = None if not background else _background(background)
    mixed = [(_picture(path, behind).rgb, share) for path, share in shares]
    pictures = [_picture(path, None if cut_out else behind) for path in portraits]
    notices = [
        f"{path.name}: {notice}"
        for path, picture in zip(portraits, pictures, strict=True)
        for notice in picture.notices
        if not (cut_out and notice == ON_GREY)
    ]
    if behind is not None and all(picture.alpha is None for picture in pictures):
        notices.append("The background shows nowhere: the portrait has no transparent part.")
    return Casting(
        portraits=[picture.rgb for picture in pictures],
        face=face,
        alpha=pictures[0].alpha if cut_out else None,
        background=behind if cut_out else None,
        size=pictures[0].size,
        notices=notices,
        mixed=mixed,
        prompt=prompt,
        seed=seed,
    )


def read_mix(text: str) -> tuple[Path, float]:
    """Read "c.jpg:0.4" as an image and how much of that person.

    Raises:
        ConfigError: it is not written so, or the share is not between 0 and 1.
    """
    name, _, share = text.rpartition(":")
    try:
        amount = float(share)
    except ValueError:
        amount = -1.0
    if not name or not 0 < amount < 1:
        raise ConfigError(f"--mix {text!r}: wanted an image and a share below 1, as in c.jpg:0.4")
    return Path(name), amount


def _background(text: str) -> RgbImage:
    path = Path(text)
    return _picture(path, None).rgb if path.is_file() else plain_colour(text)


def _picture(path: Path, background: RgbImage | None) -> Picture:
    if not path.is_file():
        raise MediaError(f"no file {path}")
    try:
        return read_picture(path.read_bytes(), background)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error
