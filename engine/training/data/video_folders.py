"""Which talking videos a folder holds: a plain folder, or the HDTF or MEAD layout.

| layout | looks like | person | test people |
| --- | --- | --- | --- |
| plain | any tree of video files | the folder under the root, else the file's name | every `1 / test_share`-th by name |
| hdtf | `RD_Radio10_000.mp4`: name and number | the name without the number | as plain (the paper: 20 %) |
| mead | `M003/video/front/angry/level_2/001.mp4`, sound in `M003/audio/angry/level_2/001.m4a` | `M003` | M003, M009, M030, W015, as in the paper |
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import DataError
from engine.training.data.clips import PROMPT, Split

Layout = Literal["auto", "plain", "hdtf", "mead"]
SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".flv"})
SOUND_SUFFIXES = (".m4a", ".wav", ".flac", ".mp3", ".aac")
MEAD_TEST = frozenset({"M003", "M009", "M030", "W015"})
MEAD_VIEWS = frozenset({"front"})
_MEAD_PERSON = re.compile(r"^[MW]\d{3}$")
_HDTF = re.compile(r"^(?P<person>(?:RD|WDA|WRA)_.+?)(?:_\d+)?$")


@dataclass(frozen=True, slots=True)
class Video:
    """One file to prepare."""

    path: Path
    name: str  # the path below the root, what reports say
    person: str
    split: Split
    prompt: str = PROMPT
    sound: Path | None = None  # where the sound is, when it is in another file

    @property
    def key(self) -> str:
        """A file name for what is made from it."""
        return re.sub(r"[^\w.-]+", "_", self.name.rsplit(".", 1)[0].replace("/", "__"))


def find_videos(root: Path, layout: Layout = "auto", test_share: float = 0.2) -> list[Video]:
    """List the videos under `root`, sorted by name.

    Raises:
        DataError: no such folder, no video in it, or it is not laid out as asked.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise DataError(
            f"no videos under {root}; wanted files ending in {', '.join(sorted(SUFFIXES))}"
        )
    chosen = detect_layout(root, files) if layout == "auto" else layout
    if chosen == "mead":
        videos = [v for p in files if (v := _mead(root, p)) is not None]
        if not videos:
            raise DataError(
                f"{root} is not laid out like MEAD: wanted PERSON/video/front/EMOTION/LEVEL/NNN.mp4"
            )
    else:
        videos = [_plain(root, p, hdtf=chosen == "hdtf", test_share=test_share) for p in files]
    return _told_apart(videos)


def detect_layout(root: Path, files: list[Path]) -> Literal["plain", "hdtf", "mead"]:
    """The layout that more than half of the files follow, else plain."""
    if 2 * sum(_mead_parts(root, p) is not None for p in files) > len(files):
        return "mead"
    if 2 * sum(_HDTF.match(p.stem) is not None for p in files) > len(files):
        return "hdtf"
    return "plain"


def held_out(person: str, share: float) -> bool:
    """Whether a person is kept for testing; depends on the name alone."""
    return zlib.crc32(person.encode()) % 1000 < 1000 * share


def _plain(root: Path, path: Path, *, hdtf: bool, test_share: float) -> Video:
    relative = path.relative_to(root)
    person = relative.parts[0] if len(relative.parts) > 1 else path.stem
    if hdtf and (match := _HDTF.match(path.stem)) is not None:
        person = match["person"]
    split: Split = "test" if held_out(person, test_share) else "train"
    return Video(path, relative.as_posix(), person, split)


def _mead_parts(root: Path, path: Path) -> tuple[str, str, str, str] | None:
    """Person, view, emotion, level of a MEAD file."""
    parts = path.relative_to(root).parts
    for i, part in enumerate(parts):
        if _MEAD_PERSON.match(part) and parts[i + 1 : i + 2] == ("video",) and len(parts) == i + 6:
            return part, parts[i + 2], parts[i + 3], parts[i + 4]
    return None


def _mead(root: Path, path: Path) -> Video | None:
    found = _mead_parts(root, path)
    if found is None or found[1] not in MEAD_VIEWS:
        return None
    person, _, emotion, level = found
    home = next(p for p in path.parents if p.name == person)
    stem = home / "audio" / emotion / level / path.stem
    sound = next((s for e in SOUND_SUFFIXES if (s := stem.with_suffix(e)).is_file()), None)
    split: Split = "test" if person in MEAD_TEST else "train"
    mood = "" if emotion == "neutral" else f", {emotion}"
    name = path.relative_to(root).as_posix()
    return Video(path, name, person, split, PROMPT + mood, sound)


def _told_apart(videos: list[Video]) -> list[Video]:
    keys: dict[str, str] = {}
    for video in videos:
        if (other := keys.setdefault(video.key, video.name)) != video.name:
            raise DataError(
                f"{other} and {video.name} would both be called {video.key}; rename one"
            )
    return videos
