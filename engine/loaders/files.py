"""Reads weight files safely and fills modules with them; each error message is one sentence."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from engine.errors import WeightsError

Tensors = dict[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)
SUFFIXES = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")


class WrongFamily(WeightsError):
    """The weights are of another model than the one asked for."""


class Damaged(WeightsError):
    """A weight file is cut short or not of the type that its suffix names."""


class Unsafe(WeightsError):
    """A pickled file holds more than tensors; it is not opened."""


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a diffusers or transformers folder.

    Raises:
        WeightsError: there is none.
        Damaged: it is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise WeightsError(f"no file {path}")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise Damaged(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise Damaged(f"{path} holds no JSON object")
    return config


def weight_file(folder: Path, stem: str) -> Path:
    """The weights called `stem` in `folder`: safetensors before .bin, full precision before half.

    Raises:
        WeightsError: there are none.
    """
    for suffix in SUFFIXES:
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    raise WeightsError(f"no file {folder / stem}.safetensors (nor {', '.join(SUFFIXES[1:])})")


def read_tensors(path: Path) -> Tensors:
    """Every tensor of a .safetensors, .bin, .pth, .pt or .ckpt file, by its name.

    Pickled files are opened with `weights_only`. Nested dictionaries become dotted names; plain
    numbers and strings beside the tensors are left out.

    Raises:
        WeightsError: there is no such file.
        Damaged: it is cut short.
        Unsafe: it holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no file {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError) as error:
        raise Damaged(f"{path} is damaged or cut short; bring it again") from error
    except pickle.UnpicklingError as error:
        if "truncated" in str(error) or "Ran out of input" in str(error):
            raise Damaged(f"{path} is damaged or cut short; bring it again") from error
        raise Unsafe(
            f"{path} holds more than tensors and could run code; use its .safetensors file, or write "
            "its tensors alone with safetensors.torch.save_file where you trust it"
        ) from error
    tensors: Tensors = {}
    _flatten(loaded, "", tensors)
    if not tensors:
        raise Damaged(f"{path} holds no tensors")
    return tensors


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise Damaged(f"{path} is damaged or cut short; bring it again") from error


def _flatten(value: Any, name: str, into: Tensors) -> None:
    if isinstance(value, Tensor):
        into[name] = value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            part = str(key)
            skip = not name and part == "state_dict"  # Lightning's wrapper
            _flatten(inner, name if skip else f"{name}.{part}" if name else part, into)


def fill(
    module: Module,
    tensors: Mapping[str, Tensor],
    source: Path,
    *,
    dtype: torch.dtype = torch.float32,
    may_lack: Iterable[str] = (),
) -> Module:
    """Put `tensors` into `module`: names and shapes must match exactly, both ways.

    Args:
        may_lack: beginnings of names that the file need not have; the module keeps its own.

    Raises:
        WrongFamily: a name is missing or unknown, or a shape differs.
    """
    wanted = module.state_dict()
    allowed = tuple(may_lack)
    missing = [n for n in wanted if n not in tensors and not (allowed and n.startswith(allowed))]
    unknown = [n for n in tensors if n not in wanted]
    if missing or unknown:
        raise WrongFamily(_misfit(source, missing, unknown))
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise WrongFamily(
                f"{source}: {name} is {list(tensor.shape)}, wanted {list(wanted[name].shape)}; "
                "the weights are of another model or size"
            )
    module.load_state_dict(
        {name: tensor.to(dtype) for name, tensor in tensors.items()},
        strict=not allowed,
        assign=True,
    )
    return module.requires_grad_(True).eval()


def _misfit(source: Path, missing: list[str], unknown: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"lacks {len(missing)} tensors, the first {missing[0]}")
    if unknown:
        parts.append(f"has {len(unknown)} unknown ones, the first {unknown[0]}")
    return f"{source} {' and '.join(parts)}; it is of another model"


def strip(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    """Those whose names begin with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
