"""What a file says of its origin: invisible mark, content credentials, comment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import BackendUnavailable, MediaError
from engine.offline.credentials import Statement, read_credentials
from engine.offline.mark import is_marked_image, is_marked_video
from engine.watermark.detector import Plane, find_mark, flattened
from engine.watermark.keys import PUBLIC_KEY
from engine.watermark.payload import Payload

WINDOW_S = 2.0
SEARCHES = 5  # windows that are searched at every scale; a mark that is there is in the first
_STEP_S = 0.2  # between two frames that are looked at
_MIDDLE = 1024  # pixels of a video's frame that are looked at, each way


@dataclass(frozen=True, slots=True)
class Seen:
    """An invisible mark: `windows` of 2 s show it; a still picture is one window."""

    payload: Payload
    public: bool  # made with the key that everybody knows
    windows: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a file; `windows` were looked at."""

    marks: tuple[Seen, ...]
    windows: int
    credentials: Statement | None
    unread: str  # why credentials could not be looked for
    comment: bool

    @property
    def anything(self) -> bool:
        """Whether the file says that it is synthetic."""
        stated = self.credentials is not None and self.credentials.synthetic
        return bool(self.marks) or stated or self.comment


def examine(path: Path, key: str = "") -> Findings:
    """Look at a picture or a video.

    Args:
        key: of the invisible mark, beside the public one.

    Raises:
        MediaError: it is neither.
    """
    if not path.is_file():
        raise MediaError(f"no file {path}")
    keys = list(dict.fromkeys([key or PUBLIC_KEY, PUBLIC_KEY]))
    picture = _is_picture(path)
    planes = iter([_of_picture(path)]) if picture else _windows(path)
    seen, windows = _look(planes, keys)
    credentials, unread = None, ""
    try:
        credentials = read_credentials(path)
    except BackendUnavailable as error:
        unread = str(error)
    comment = is_marked_image(path) if picture else is_marked_video(path)
    return Findings(seen, windows, credentials, unread, comment)


def _look(planes: Iterator[Plane], keys: Sequence[str]) -> tuple[tuple[Seen, ...], int]:
    """The marks in sums of flattened pictures, and how many sums there were."""
    found: Counter[tuple[Payload, str]] = Counter()
    windows, scale = 0, None
    for plane in planes:
        windows += 1
        mark = find_mark(plane, keys, scale) if scale is not None or windows <= SEARCHES else None
        if mark is not None:
            scale = mark.scale
            found[mark.payload, mark.key] += 1
        elif scale is None and windows >= SEARCHES:
            break
    seen = (Seen(p, key == PUBLIC_KEY, count) for (p, key), count in found.most_common())
    return tuple(seen), windows


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except OSError:
        return False


def _of_picture(path: Path) -> Plane:
    try:
        with Image.open(path) as image:
            return flattened(np.asarray(image.convert("L")))
    except (OSError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path.name} cannot be read: {error}") from None


def _windows(path: Path) -> Iterator[Plane]:
    """For each 2 s of a video the sum of some of its pictures, flattened."""
    total: Plane | None = None
    began = due = at = 0.0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path.name} holds no pictures")
            for frame in container.decode(video=0):
                at = frame.time or 0.0
                if total is not None and at >= began + WINDOW_S:
                    yield total
                    total, began = None, at
                if total is None or at >= due:
                    plane = flattened(_middle(frame.to_ndarray(format="gray").astype(np.uint8)))
                    total = plane if total is None else total + plane
                    due = at + _STEP_S
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path.name} is neither a picture nor a video: {error}") from None
    if total is not None and (began == 0.0 or at - began > WINDOW_S / 2):
        yield total


def _middle(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a plane (H, W), if it is large."""
    top, left = (max(0, n - _MIDDLE) // 2 for n in luma.shape)
    return luma[top : top + _MIDDLE, left : left + _MIDDLE]
