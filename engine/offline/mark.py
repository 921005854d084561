"""What every file that is made says of itself, in the comment of the container or the image."""

from __future__ import annotations

from pathlib import Path

import av
from PIL import Image
from PIL.PngImagePlugin import PngInfo

MARK = "Synthetic video: a portrait animated by portraittalk"


def image_mark() -> PngInfo:
    """The comment of a PNG file."""
    mark = PngInfo()
    mark.add_text("Comment", MARK)
    return mark


def is_marked_image(path: Path) -> bool:
    """Whether `path` is an image with that comment."""
    try:
        with Image.open(path) as image:
            return image.info.get("Comment") == MARK
    except OSError:
        return False


def is_marked_video(path: Path) -> bool:
    """Whether `path` is a video with that comment."""
    try:
        with av.open(str(path)) as container:
            said = {name.lower(): text for name, text in container.metadata.items()}
    except (av.FFmpegError, OSError):
        return False
    return said.get("comment") == MARK
