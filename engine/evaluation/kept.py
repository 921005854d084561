"""What was worked out once and is taken again: numbers in files that are named by all they follow from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import engine


@dataclass(frozen=True, slots=True)
class Saved:
    """What one file holds: words and numbers as JSON knows them, and arrays by name."""

    told: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


class Shelf:
    """A folder of such files; without a folder nothing is kept.

    Args:
        folder: where, or None.
        made_by: in every name: what changes it makes all of them anew.
    """

    def __init__(self, folder: Path | None, made_by: str = "") -> None:
        self._folder, self._made_by = folder, made_by

    def place(self, kind: str, *of: str) -> Path | None:
        """The file of what follows from `of`."""
        if self._folder is None:
            return None
        digest = hashlib.sha256("\n".join((kind, self._made_by, *of)).encode()).hexdigest()
        return self._folder / kind / f"{digest[:24]}.npz"

    def take(self, kind: str, *of: str) -> Saved | None:
        """What was put there before, if it was."""
        place = self.place(kind, *of)
        if place is None or not place.is_file():
            return None
        with np.load(place) as saved:
            arrays = {name: saved[name] for name in saved.files if name != "told"}
            return Saved(json.loads(str(saved["told"])), arrays)

    def put(
        self, told: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], kind: str, *of: str
    ) -> None:
        """Keep it; the file appears only when it is whole."""
        place = self.place(kind, *of)
        if place is None:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.stem}.part.npz")
        np.savez_compressed(partial, told=np.array(json.dumps(dict(told))), **arrays)  # type: ignore[arg-type]
        partial.replace(place)


@cache
def code_key(*parts: str) -> str:
    """SHA-256 of files and folders of the engine: the code and weights that are in them."""
    digest = hashlib.sha256()
    for part in parts:
        place = Path(engine.__file__).parent / part
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.suffix in (".py", ".onnx", ".npz", ".safetensors") and path.is_file():
                digest.update(path.read_bytes())
    return digest.hexdigest()
