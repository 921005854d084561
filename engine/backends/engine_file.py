"""Built engines as files: each says what it was built of and for, and only that is ever taken for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

log = logging.getLogger(__name__)
MAGIC = b"portraittalk engine 1\n"
_LENGTH = 8  # bytes of the length of the description


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """What an engine was built of and for; two that differ in anything are two engines."""

    graph: str  # name of its spec
    weights: str  # digest of the weights, and of the code that made the graph
    target: str  # architecture of the GPU: sm89
    library: str  # and its version: tensorrt_rtx 1.7.1.116
    precision: str
    profiles: tuple[str, ...]  # shapes that it takes, one a batch size
    options: str = ""

    @property
    def name(self) -> str:
        """A file name that no other key has."""
        digest = hashlib.sha256(_text(self).encode()).hexdigest()[:16]
        return f"{self.graph}-{self.target}-{digest}.engine"


def _text(key: EngineKey) -> str:
    return json.dumps(asdict(key), sort_keys=True)


def engine_folder() -> Path:
    """Where engines are kept: the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "portraittalk" / "engines"


def write_engine(folder: Path, key: EngineKey, plan: bytes | memoryview) -> Path:
    """Keep `plan`, whole or not at all: it gets its name when all of it is on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    said = json.dumps({"key": asdict(key), "sha256": hashlib.sha256(plan).hexdigest()}).encode()
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{key.graph}-", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC + len(said).to_bytes(_LENGTH, "little") + said)
            file.write(plan)
            file.flush()
            os.fsync(file.fileno())
        path = folder / key.name
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    return path


def read_engine(folder: Path, key: EngineKey) -> bytes | None:
    """The plan kept for `key`; None where there is none.

    A file of that name that was built of something else, or is not whole, is not taken either: one line
    of the log says so.
    """
    path = folder / key.name
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    begin = len(MAGIC) + _LENGTH
    length = int.from_bytes(data[len(MAGIC) : begin], "little")
    plan = data[begin + length :]
    try:
        said = json.loads(data[begin : begin + length])
        known, digest = json.dumps(said["key"], sort_keys=True), said["sha256"]
    except (ValueError, KeyError, TypeError):
        known, digest = "", ""
    if not data.startswith(MAGIC) or digest != hashlib.sha256(plan).hexdigest():
        log.warning("%s is damaged; its engine is built again", path)
        return None
    if known != _text(key):
        log.warning("%s was built of something else; its engine is built again", path)
        return None
    return plan
