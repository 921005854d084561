"""Checks of values that settings and options hold, and of the files they stand in."""

from __future__ import annotations

import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from engine.errors import ConfigError


def check_words(settings: Any) -> None:
    """Refuse a value of dataclass `settings` that is none of the words its field may hold.

    Raises:
        ConfigError: it is unknown; the message holds the known ones.
    """
    for field, kind in typing.get_type_hints(type(settings)).items():
        known = _words(kind)
        if known and getattr(settings, field) not in known:
            words = ", ".join(repr(word) for word in known)
            raise ConfigError(f"{field}={getattr(settings, field)!r} is unknown; one of {words}")


def _words(kind: Any) -> tuple[Any, ...]:
    """The words of a literal type, or of a union of them."""
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return tuple(word for part in typing.get_args(kind) for word in _words(part))
    return ()


def check_seed(seed: int) -> None:
    """Refuse what seeds no generator.

    Raises:
        ConfigError: it is negative or has more than 63 bits.
    """
    if not 0 <= seed < 1 << 63:
        raise ConfigError(f"seed={seed} is out of range; 0 to {(1 << 63) - 1}")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, unchecked.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"no configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
