"""How a video is coded, by the ending of its name and by whether it is partly transparent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import MediaError

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm")
_WITH_ALPHA = (".mov", ".webm", "")
PNG_BITS = 10.0  # a pixel of a frame in a folder, about


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """Coders of pictures and sound, and what they take."""

    codec: str
    pixels: str  # PyAV's name of the pixel format
    options: Mapping[str, str]
    sound: str
    sound_options: Mapping[str, str]
    bits: float  # a pixel of a frame takes about that many


# As good as `veryfast` at the same rate factor and nearly as small, in half of its time: portraits
# stand still for the most part, so what x264 looks for costs more than it finds. `mbtree` is what counts.
_X264 = {
    "preset": "ultrafast",
    "crf": "16",
    "x264-params": "mbtree=1:rc-lookahead=5:aq-mode=1:deblock=0,0:chromaloc=1",
}
_VP9 = {"crf": "20", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
_AAC = {"aac_coder": "fast"}
H264 = VideoFormat("libx264", "yuv420p", _X264, "aac", _AAC, 0.08)
VP9 = VideoFormat("libvpx-vp9", "yuv420p", _VP9, "libopus", {}, 0.08)
VP9_ALPHA = VideoFormat("libvpx-vp9", "yuva420p", _VP9, "libopus", {}, 0.1)
PRORES_4444 = VideoFormat("prores_ks", "yuva444p10le", {"profile": "4444"}, "aac", _AAC, 8.0)


def keeps_alpha(out: Path) -> bool:
    """Whether a video of that name, or a folder of frames, can be partly transparent."""
    return out.suffix.lower() in _WITH_ALPHA


def video_format(out: Path, *, alpha: bool) -> VideoFormat:
    """The format of a video of that name.

    Raises:
        MediaError: it has an ending that no video has, or one that holds no alpha.
    """
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise MediaError(
            f"{out.name}: wanted a name ending in one of {', '.join(SUFFIXES)}, or in none for a "
            "folder of images"
        )
    if alpha and not keeps_alpha(out):
        raise MediaError(f"{out.name} cannot be transparent; .mov, .webm and a folder can")
    if suffix == ".webm":
        return VP9_ALPHA if alpha else VP9
    return PRORES_4444 if alpha else H264
