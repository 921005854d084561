"""What a training run keeps: running means of its weights, and files written whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import DataError

CHECKPOINT = "checkpoint.pt"


class RunningMean:
    """Exponential running mean of named tensors.

    Args:
        tensors: parameters, or the floating-point entries of a `state_dict`.
        decay: of the mean, once warm.
        warm_up: the first steps decay by (step + 1) / (step + warm_up); 1 for `decay` at once.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float, warm_up: int = 10) -> None:
        self._live, self._decay, self._warm_up = dict(tensors), decay, warm_up
        self.kept = {n: t.detach().clone() for n, t in tensors.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the live tensors after step number `step`, counted from 0."""
        decay = min(self._decay, (step + 1) / (step + self._warm_up))
        torch._foreach_lerp_(list(self.kept.values()), list(self._live.values()), 1 - decay)

    @torch.no_grad()
    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from saved means."""
        for name, tensor in self.kept.items():
            tensor.copy_(kept[name])

    def swap(self) -> None:
        """Exchange live parameters and means (twice restores both)."""
        for name, live in self._live.items():
            live.data, self.kept[name] = self.kept[name], live.data


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; a stop in the middle leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(dict(state), part)
    part.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint into the memory of the CPU, whichever device wrote it.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return state
