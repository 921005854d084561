"""What a run of training keeps: a checkpoint to go on from exactly, and running means to build on."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from engine.errors import DataError
from engine.loaders.trained import WEIGHTS
from engine.training.portraittalk.stage_config import STAGES, Stage

CHECKPOINT = "checkpoint.pt"


class RunningMean:
    """Exponential running mean of named parameters."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self._live, self._decay = parameters, decay
        self.kept = {n: p.detach().clone() for n, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the live weights in; faster during the first steps."""
        decay = min(self._decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(self.kept.values()), list(self._live.values()), 1 - decay)

    def swap(self) -> None:
        """Exchange live weights and means (twice is nothing)."""
        for name, live in self._live.items():
            live.data, self.kept[name] = self.kept[name], live.data


def save_run(
    folder: Path,
    trained: dict[str, nn.Parameter],
    mean: RunningMean,
    optimiser: Any,
    step: int,
    more: dict[str, Any],
) -> None:
    """Write a checkpoint and the running means; each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "weights": {n: p.detach() for n, p in trained.items()},
        "mean": mean.kept,
        "optimiser": optimiser.state_dict(),
        "step": step,
        **more,
    }
    part = folder / (CHECKPOINT + ".part")
    torch.save(state, part)
    means = folder / (WEIGHTS + ".part")
    save_file({n: p.contiguous().cpu() for n, p in mean.kept.items()}, means)
    means.replace(folder / WEIGHTS)
    part.replace(folder / CHECKPOINT)


def read_checkpoint(folder: Path, trained: dict[str, nn.Parameter]) -> dict[str, Any]:
    """Read a checkpoint of these parameters into the memory of the CPU, whichever device wrote it.

    Raises:
        DataError: it is of others, or damaged.
    """
    path = folder / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if state["weights"].keys() != trained.keys():
        raise DataError(
            f"{path} was made with another configuration; name another run folder, or train with "
            "the configuration it was made with"
        )
    return state


def restore(
    state: dict[str, Any], trained: dict[str, nn.Parameter], mean: RunningMean, optimiser: Any
) -> int:
    """Put a checkpoint back; the step it was made at."""
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state["weights"][name])
            mean.kept[name].copy_(state["mean"][name])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def earlier(stage: str) -> tuple[Stage, ...]:
    """The stages whose weights `stage` starts from."""
    return STAGES if stage == "distill" else STAGES[: STAGES.index(stage)]
