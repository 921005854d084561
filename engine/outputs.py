"""Where results go: nothing that this project did not make is ever deleted or overwritten."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.errors import ConfigError

if sys.platform != "win32":
    import fcntl

MARKER = ".portraittalk"  # an empty file in every folder that is ours to write in
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    """Refuse to write over a file of somebody else, or where no file can be; nothing is written.

    Args:
        ours: whether an existing file was made by this project.

    Raises:
        ConfigError: there is such a file, `path` is a folder, or as `check_writable`.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file")
    check_writable(path.parent)
    if path.exists() and not ours(path):
        raise ConfigError(f"{path} was not made by portraittalk; name another file")


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to, or made where it is missing.

    Raises:
        ConfigError: it, or what is named above it, is a file, or there is no right to write.
    """
    there = _existing(folder)
    if not there.is_dir():
        raise ConfigError(f"{there} is a file; name a folder")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error


def check_room(folder: Path, needed: int) -> None:
    """Refuse a folder, which need not exist yet, whose disk has less than `needed` bytes left.

    Raises:
        ConfigError: so it is; the message holds both figures.
    """
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise ConfigError(
            f"{folder}: about {_size(needed)} are needed and {_size(free)} are free; make room or "
            "name another folder"
        )


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a file or folder that is to be made, so that no other run writes there meanwhile.

    Missing folders above it are made; those that stay empty are removed again.

    Raises:
        ConfigError: another run holds it, it cannot be written, or the disk became full meanwhile.
    """
    above = path.absolute().parent
    missing = [folder for folder in (above, *above.parents) if not folder.exists()]
    try:
        _make(above)
        with _locked(path), _full_disk_said(path):
            yield
    finally:
        with contextlib.suppress(OSError):  # the first that holds something ends it
            for folder in missing:
                folder.rmdir()


def _make(folder: Path) -> None:
    """Make a folder, and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The system lets go of the lock with the process, however it ends: a file left means nothing."""
    if sys.platform == "win32":
        yield
        return
    whole = path.resolve()
    name = whole.with_name(f".{whole.name}.lock")
    try:
        file = _lock(name)
    except BlockingIOError:
        raise ConfigError(f"another run is writing {path}; wait for it or name another") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        name.unlink(missing_ok=True)
        os.close(file)


def _lock(name: Path) -> int:
    """Make and lock a file; returns its descriptor. Raises `BlockingIOError` where another holds it."""
    while True:
        file, held = os.open(name, os.O_CREAT | os.O_RDWR, 0o600), False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = name.exists() and os.path.samestat(os.fstat(file), name.stat())
            if held:
                return file
        finally:
            if not held:  # by another run; or its holder removed it just now: make another
                os.close(file)


@contextlib.contextmanager
def _full_disk_said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ConfigError(f"{path} cannot be written: {os.strerror(error.errno)}") from error


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(there for there in (folder, *folder.parents) if there.exists())


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
