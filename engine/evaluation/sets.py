"""What is evaluated: a folder with a manifest, or talking videos laid out as HDTF or MEAD are.

`set.toml` of a folder of one's own:

    name = "two people"
    licence = "CC BY 4.0"

    [[clips]]
    name = "anna"
    real = "anna.mp4"        # a film of the person saying it, if there is one
    portrait = "anna.jpg"    # without it the first frame of `real`
    audio = "anna.wav"       # without it the sound of `real`
    start_s = 2.0            # of `real` and `audio`
    seconds = 10.0           # all of it without this
    sound_late_s = 0.25      # by so much the sound of `real` comes after its lips; below 0: before them

Paths are taken from the folder, and may not leave it but by a link.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from engine.config import from_mapping
from engine.errors import ConfigError, DataError
from engine.training.data.video_folders import Layout, Video, detect_layout, find_videos

MANIFEST = "set.toml"
LATEST_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationClip:
    """One thing that is said, by whom, and the film of it where there is one."""

    name: str
    real: Path | None = None
    portrait: Path | None = None
    audio: Path | None = None
    start_s: float = 0.0
    seconds: float | None = None
    sound_late_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "._-" for c in self.name):
            raise DataError(f"clip {self.name!r}: a name is of letters, digits, '.', '_' and '-'")
        if self.real is None and (self.portrait is None or self.audio is None):
            raise DataError(f"clip {self.name}: without `real` it needs `portrait` and `audio`")
        if self.start_s < 0 or (self.seconds is not None and self.seconds <= 0):
            raise DataError(f"clip {self.name}: start_s is 0 or more, seconds more than 0")
        if abs(self.sound_late_s) > LATEST_S or (self.sound_late_s and self.real is None):
            raise DataError(
                f"clip {self.name}: sound_late_s is of `real`, and at most {LATEST_S:g} s either way"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Clips that are evaluated together; `licence` says what may be done with pictures of them."""

    name: str
    licence: str
    clips: tuple[EvaluationClip, ...]
    layout: str = "manifest"


def read_set(folder: Path, *, layout: Layout = "auto") -> EvaluationSet:
    """Read a set: its manifest, or without one the videos in it.

    Of HDTF and MEAD the people that are kept for testing are taken, all where there are none of them.

    Raises:
        DataError: there is no such folder, or what is wrong with it.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    if (folder / MANIFEST).is_file():
        return _manifest(folder)
    videos = find_videos(folder, layout)
    kept = [video for video in videos if video.split == "test"] or videos
    found = detect_layout(folder, [v.path for v in videos]) if layout == "auto" else layout
    return EvaluationSet(
        name=folder.resolve().name,
        licence="not said: the folder has no set.toml",
        clips=tuple(_of_video(video) for video in kept),
        layout=found,
    )


def _of_video(video: Video) -> EvaluationClip:
    return EvaluationClip(name=video.key, real=video.path, audio=video.sound)


def _manifest(folder: Path) -> EvaluationSet:
    path = folder / MANIFEST
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if unknown := set(raw) - {"name", "licence", "clips"}:
        raise DataError(f"{path}: unknown {', '.join(sorted(unknown))}; see engine.evaluation.sets")
    for wanted in ("name", "licence"):
        if not isinstance(raw.get(wanted), str) or not raw[wanted]:
            raise DataError(f'{path}: {wanted} = "..." is missing')
    rows = raw.get("clips")
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: it has no [[clips]]")
    clips = tuple(_clip(folder, row, number) for number, row in enumerate(rows, 1))
    if twice := {c.name for c in clips if sum(c.name == d.name for d in clips) > 1}:
        raise DataError(f"{path}: two clips are called {sorted(twice)[0]}")
    return EvaluationSet(name=raw["name"], licence=raw["licence"], clips=clips)


def _clip(folder: Path, row: Any, number: int) -> EvaluationClip:
    where = f"{folder / MANIFEST}: clip {number}"
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise DataError(f"{where} has no name")
    numbers = ("start_s", "seconds", "sound_late_s")
    known = {field.name for field in fields(EvaluationClip)}
    for key, value in row.items():
        wanted = (int, float) if key in numbers else (str,)
        if key in known and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise DataError(
                f"{where}: {key} = {value!r} is no {'number' if key in numbers else 'text'}"
            )
    paths = {key: folder / row[key] for key in ("real", "portrait", "audio") if key in row}
    if missing := [path for path in paths.values() if not path.is_file()]:
        raise DataError(f"{where}: no file {missing[0]}")
    try:
        return from_mapping(EvaluationClip, {**row, **paths})
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error
