"""Where results go: nothing that this project did not make is ever deleted or overwritten."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.errors import ConfigError

MARKER = ".portraittalk"  # an empty file in every folder that is ours to write in


def check_folder(folder: Path, *, earlier: bool = False) -> None:
    """Refuse a folder that holds files of somebody else; nothing is written.

    Args:
        earlier: the folder holds what a version wrote that left no marker.

    Raises:
        ConfigError: it is a file, or it holds something and is not ours.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder")
    if earlier or not folder.exists() or (folder / MARKER).exists():
        return
    if any(folder.iterdir()):
        raise ConfigError(
            f"{folder} holds files that portraittalk did not make; name a new or an empty folder"
        )


def own_folder(folder: Path, *, earlier: bool = False) -> None:
    """Make `folder`, or take one that is ours, and leave the marker in it.

    Raises:
        ConfigError: as `check_folder`; or it cannot be written.
    """
    check_folder(folder, earlier=earlier)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error


def check_file(path: Path, ours: Callable[[Path], bool]) -> None:
    """Refuse to write over a file of somebody else, or where no file can be.

    Args:
        ours: whether an existing file was made by this project.

    Raises:
        ConfigError: there is such a file, `path` is a folder, or no file can be made there.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"no folder {path.parent} to write {path.name} to")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file")
    if path.exists() and not ours(path):
        raise ConfigError(f"{path} was not made by portraittalk; name another file")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
