"""The header of a safetensors file, read without its tensors and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import WeightsError

LARGEST = 100_000_000  # bytes, as the format allows
_METADATA = "__metadata__"


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST:
                raise ValueError
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise WeightsError(f"no file {path}") from None
    except (OSError, ValueError):
        raise WeightsError(f"{path} is damaged or no safetensors file") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path} is damaged or no safetensors file")
    return header


def metadata(path: Path) -> dict[str, str]:
    """What is said beside the tensors, by its keys.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    said = _header(path).get(_METADATA, {})
    return dict(said) if isinstance(said, dict) else {}


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    return _header(path).keys() - {_METADATA}
