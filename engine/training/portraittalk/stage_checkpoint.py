"""The checkpoint of a stage, and beside it the running means that the next stage builds on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from engine.errors import DataError
from engine.loaders.run_card import WEIGHTS, RunCard
from engine.training.checkpoints import (
    CHECKPOINT,
    RunningMean,
    read_checkpoint,
    write_checkpoint,
)


def save_stage(
    folder: Path,
    trained: dict[str, nn.Parameter],
    mean: RunningMean,
    optimiser: Any,
    card: RunCard,
    state: dict[str, Any],
) -> None:
    """Write a checkpoint and the running means; each file whole or not at all.

    Args:
        card: what the means were trained with, written into their file.
        state: what else a resumed run needs: `step`, and whatever the trainer adds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    means = folder / (WEIGHTS + ".part")
    kept = {n: p.contiguous().cpu() for n, p in mean.kept.items()}
    save_file(kept, means, metadata={"format": "pt"} | card.packed())
    means.replace(folder / WEIGHTS)
    weights = {n: p.detach() for n, p in trained.items()}
    own = {"weights": weights, "mean": mean.kept, "optimiser": optimiser.state_dict()}
    write_checkpoint(folder / CHECKPOINT, own | state)


def read_stage(folder: Path, trained: dict[str, nn.Parameter]) -> dict[str, Any]:
    """Read the checkpoint of these parameters.

    Raises:
        DataError: it is of others, or damaged.
    """
    path = folder / CHECKPOINT
    state = read_checkpoint(path)
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
    mean.restore(state["mean"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
