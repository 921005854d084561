"""Loads the results of our own training (`weights.safetensors` of a stage) into a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from engine.loaders.files import WrongFamily, read_tensors
from engine.loaders.run_card import WEIGHTS, Start
from engine.loaders.start_weights import copy_encoder
from engine.nets.portraittalk import PortraitTalkModel

BEFORE_ANIMATE = ("codec", "identity")


def load_stages(model: PortraitTalkModel, start: Start, folders: Iterable[Path]) -> None:
    """Put the stages of a run, `folders` named after them, over what it starts from.

    A system of random weights lets AnimateNet begin as a copy of IdentityNet's encoder; public ones
    have a trained AnimateNet.

    Raises:
        WrongFamily: a tensor does not fit this model.
        WeightsError: a file is damaged.
    """
    by_name = {folder.name: folder for folder in folders}
    load_trained(model, [by_name[name] for name in BEFORE_ANIMATE if name in by_name])
    if start.kind == "random":
        copy_encoder(model)
    load_trained(model, [f for name, f in by_name.items() if name not in BEFORE_ANIMATE])


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
