"""Frames of a video in the making, kept beside it so that a stopped run can go on."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.audio.sound_file import MARK
from engine.types import RgbImage, VideoFrame

Arrays = Mapping[str, NDArray[Any]]
_RUN, _STATE = "run.json", "state.npz"


class FrameFolder:
    """PNG files of the frames drawn so far, and what the next frame needs of them.

    Args:
        key: what the frames depend on; frames of another key are thrown away.

    Attributes:
        begin: frames that need not be drawn again.
        kept: what the engine needs to go on at `begin`; None at the start.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.begin, self.kept = 0, None
        path.mkdir(parents=True, exist_ok=True)
        if self._read_key() == key:
            self.begin, self.kept = self._read_state()
        else:
            self._clear()
            (path / _RUN).write_text(json.dumps({"key": key}))

    def add(self, frame: VideoFrame) -> None:
        """Keep one frame."""
        partial = self.path / ".frame.part"
        mark = PngInfo()
        mark.add_text("Comment", MARK)
        Image.fromarray(frame.rgb).save(partial, format="png", compress_level=1, pnginfo=mark)
        partial.replace(self._name(frame.index))

    def save(self, begin: int, kept: Arrays) -> None:
        """Note that all frames before `begin` are kept, and what the engine needs for that one."""
        partial = self.path / ".state.part"
        with partial.open("wb") as file:
            np.savez(file, __begin__=begin, **kept)  # type: ignore[arg-type]
        partial.replace(self.path / _STATE)

    def frames(self, count: int) -> Iterator[VideoFrame]:
        """Read the first `count` frames again."""
        for index in range(count):
            with Image.open(self._name(index)) as picture:
                rgb: RgbImage = np.asarray(picture.convert("RGB"))
            yield VideoFrame(index, rgb)

    def finish(self) -> None:
        """Leave nothing in the folder but the pictures."""
        for name in (_RUN, _STATE):
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path)

    def _name(self, index: int) -> Path:
        return self.path / f"{index:06d}.png"

    def _read_key(self) -> str | None:
        try:
            key: str | None = json.loads((self.path / _RUN).read_text())["key"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return key

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
        self.finish()
        for picture in self.path.glob("[0-9]" * 6 + ".png"):
            picture.unlink()
