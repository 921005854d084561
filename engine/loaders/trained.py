"""Loads the results of our own training (`weights.safetensors` of a stage) into a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from engine.loaders.files import WrongFamily, read_tensors

WEIGHTS = "weights.safetensors"


def load_trained(model: nn.Module, folders: Iterable[Path]) -> list[Path]:
    """Put the weights of stages into a `PortraitTalkModel`, later folders over earlier ones.

    A file holds the running means of the parameters that its stage trained, by their names in the
    model. Folders without one are skipped; the files that were read are returned.

    Raises:
        WrongFamily: a tensor does not fit this model: it was trained with another configuration.
        WeightsError: a file is damaged.
    """
    own = dict(model.named_parameters())
    read = [path for folder in folders if (path := folder / WEIGHTS).is_file()]
    for path in read:
        for name, tensor in read_tensors(path).items():
            if name not in own or own[name].shape != tensor.shape:
                raise WrongFamily(
                    f"{path} holds {name} {tuple(tensor.shape)}, which this model does not have; "
                    "it was trained with another [model]"
                )
            with torch.no_grad():
                own[name].copy_(tensor)
    return read
