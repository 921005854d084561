"""Packages that only some doors need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from engine.errors import BackendUnavailable


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Say in words which extra a package that is missing inside the block belongs to.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"this needs the package {error.name}: pip install 'portraittalk[{name}]'"
        ) from error
