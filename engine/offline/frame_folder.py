"""Frames of a video in the making, kept beside it so that a stopped run can go on."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import ConfigError
from engine.offline.credentials import Credentials
from engine.offline.mark import image_mark, is_marked_image
from engine.outputs import MARKER, check_folder, check_writable, own_folder
from engine.types import RgbImage, VideoFrame

Arrays = Mapping[str, NDArray[Any]]
_RUN, _STATE = "run.json", "state.npz"
_PARTS = (".frame.part", ".state.part")


def check_frame_folder(path: Path) -> None:
    """Refuse a folder in which frames would take the place of files of somebody else.

    Raises:
        ConfigError: the folder is not ours, or something in it is not that a frame, or what a
            stopped run goes on from, would overwrite.
    """
    run = path / _RUN
    foreign = [image.name for image in _images(path) if not is_marked_image(image)]
    foreign += [run.name] if run.exists() and _key_in(run) is None else []
    if foreign:
        raise ConfigError(
            f"{path} holds {foreign[0]}, which portraittalk did not make; name another folder"
        )
    check_folder(path, earlier=_made_here(path))
    check_writable(path)


class FrameFolder:
    """PNG files of the frames drawn so far, and what the next frame needs of them.

    Args:
        key: what the frames depend on; frames of another key are thrown away.

    Raises:
        ConfigError: as `check_frame_folder`.

    Attributes:
        begin: frames that need not be drawn again.
        kept: what the engine needs to go on at `begin`; None at the start.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.begin, self.kept = 0, None
        check_frame_folder(path)
        own_folder(path, earlier=_made_here(path))
        if _key_in(path / _RUN) == key:
            self.begin, self.kept = self._read_state()
        else:
            self._clear()
            (path / _RUN).write_text(json.dumps({"key": key}))

    def add(self, frame: VideoFrame) -> None:
        """Keep one frame."""
        partial = self.path / _PARTS[0]
        Image.fromarray(frame.rgb).save(
            partial, format="png", compress_level=1, pnginfo=image_mark()
        )
        partial.replace(self._name(frame.index))

    def save(self, begin: int, kept: Arrays) -> None:
        """Note that all frames before `begin` are kept, and the arrays (...) that the engine needs for it."""
        partial = self.path / _PARTS[1]
        with partial.open("wb") as file:
            np.savez(file, __begin__=begin, **kept)  # type: ignore[arg-type]
        partial.replace(self.path / _STATE)

    def frames(self, count: int) -> Iterator[VideoFrame]:
        """Read the first `count` frames again."""
        for index in range(count):
            with Image.open(self._name(index)) as image:
                rgb: RgbImage = np.asarray(image)
            yield VideoFrame(index, rgb)

    def finish(self, count: int, credentials: Credentials | None) -> None:
        """Sign the first `count` frames, and leave nothing of ours in the folder beside them."""
        if credentials is not None:
            for index in range(count):
                credentials.sign(self._name(index))
        for name in (_RUN, _STATE, MARKER, *_PARTS):
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the frames, and the folder unless somebody put something into it."""
        self._clear()
        (self.path / MARKER).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _name(self, index: int) -> Path:
        return self.path / f"{index:06d}.png"

    def _read_state(self) -> tuple[int, Arrays | None]:
        try:
            with np.load(self.path / _STATE) as saved:
                kept = {name: saved[name] for name in saved.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return 0, None
        begin = int(kept.pop("__begin__"))
        if not all(self._name(index).is_file() for index in range(begin)):
            return 0, None
        return begin, kept

    def _clear(self) -> None:
        for name in (_RUN, _STATE, *_PARTS):
            (self.path / name).unlink(missing_ok=True)
        for image in _images(self.path):
            if is_marked_image(image):
                image.unlink()


def _images(path: Path) -> list[Path]:
    return sorted(path.glob("[0-9]" * 6 + ".png"))


def _key_in(run: Path) -> str | None:
    """The key in a run file; None when it is missing or not ours."""
    try:
        said = json.loads(run.read_text())
    except (OSError, ValueError):
        return None
    key = said.get("key") if isinstance(said, dict) and len(said) == 1 else None
    return key if isinstance(key, str) and re.fullmatch("[0-9a-f]{64}", key) else None


def _made_here(path: Path) -> bool:
    """Whether a folder without the marker is ours all the same.

    It holds the run file of an earlier version, or finished frames and no state to go on from.
    """
    if _key_in(path / _RUN) is not None:
        return True
    images = _images(path)
    return bool(images) and not (path / _STATE).exists() and all(map(is_marked_image, images))
