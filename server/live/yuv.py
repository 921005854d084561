"""Pictures as encoders want them: the engine's RGB made planes of YUV 4:2:0, beside the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from engine.types import RgbImage
from engine.watermark.mark import Mark

if TYPE_CHECKING:
    from server.live.clips import Picture

Yuv = NDArray[np.uint8]  # (3H/2, W): Y, then U and V at half the size, two of their rows in one
_own = threading.local()


def to_yuv(rgb: RgbImage, mark: Mark | None = None) -> Yuv:
    """Planes (3H/2, W) of a picture (H, W, 3), cut to even sides as chroma needs, and marked."""
    height, width, _ = rgb.shape
    even = np.ascontiguousarray(rgb[: height // 2 * 2, : width // 2 * 2])
    if not hasattr(_own, "reformatter"):
        _own.reformatter = VideoReformatter()  # keeps its tables from one picture to the next
    frame = av.VideoFrame.from_numpy_buffer(even, format="rgb24")
    planes: Yuv = _own.reformatter.reformat(
        frame, format="yuv420p", interpolation="AREA"
    ).to_ndarray()
    if mark is not None:
        mark.on_luma(planes[: height // 2 * 2])
    return planes


def as_frame(yuv: Yuv) -> av.VideoFrame:
    """A frame of one's own around planes (3H/2, W) that are shared; nobody may write to them."""
    return av.VideoFrame.from_numpy_buffer(yuv, format="yuv420p")


class Converter:
    """Makes pictures ready on a thread of its own, in the order in which they come."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="yuv")

    def before(
        self,
        deliver: Callable[[list[Picture]], None],
        failed: Callable[[BaseException], None],
        mark: Mark | None = None,
    ) -> Callable[[list[Picture]], None]:
        """What takes pictures from any thread and calls `deliver` on this one, or `failed`."""

        def convert(pictures: list[Picture]) -> None:
            pictures = [replace(picture, mark=mark) for picture in pictures]
            for picture in pictures:
                if picture.fresh:
                    picture.yuv  # noqa: B018 - made now, kept by the picture
            deliver(pictures)

        def done(future: Future[None]) -> None:
            if not future.cancelled() and (error := future.exception()) is not None:
                failed(error)

        return lambda pictures: self._thread.submit(convert, pictures).add_done_callback(done)

    def stop(self) -> None:
        """Finish what is in hand; nothing may be given any more."""
        self._thread.shutdown()
