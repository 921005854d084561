"""Fuses LoRA files (arXiv 2106.09685) of few-step methods (LCM, TCD, Hyper-SD) and IP-Adapter-FaceID.

diffusers translates the naming conventions in use. The low-rank products are added here, in
float32 and once every layer is known to fit: nothing runs slower afterwards, and a file that fits only
in part changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_unet_state_dict_to_peft
from torch import Tensor, nn

from engine.loaders.files import WrongFamily, read_tensors

TEXT_PREFIXES = ("lora_te", "text_encoder")
Named = dict[str, Any]
DOWN, UP, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change of one weight: `factor * up @ down`, (out, in) with a kernel flattened into `in`."""

    weight: Tensor
    down: Tensor  # (r, in)
    up: Tensor  # (out, r)
    factor: float  # alpha / r


def fuse_lora(module: nn.Module, path: Path, *, strength: float = 1.0) -> int:
    """Add the LoRA file `path` to the UNet `module`; returns how many layers changed.

    Raises:
        WrongFamily: it changes a layer that is not there, or one of another shape.
        WeightsError: the file is missing, damaged or no LoRA.
    """
    return fuse(module, read_tensors(path), path, strength=strength)


@torch.no_grad()
def fuse(
    module: nn.Module, tensors: Mapping[str, Tensor], source: Path, *, strength: float = 1.0
) -> int:
    """Add LoRA tensors that were already read; see `fuse_lora`."""
    named = _peft_names(tensors, source)
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    changed = dict.fromkeys(name.removesuffix(end) for name in named for end in _ends(name))
    changes = [_change(layers.get(name), name, named, source) for name in changed]
    for change in changes:  # only once everything fits
        added = strength * change.factor * (change.up.float() @ change.down.float())
        change.weight.add_(added.view(change.weight.shape).to(change.weight.dtype))
    return len(changes)


def _peft_names(tensors: Mapping[str, Tensor], source: Path) -> Named:
    """Tensors by `layer.lora_A.weight` and `layer.lora_B.weight`, numbers by `layer.alpha`."""
    for name in tensors:
        if name.startswith(TEXT_PREFIXES):
            raise WrongFamily(f"{source} also changes the text encoder, which is not supported")
        if "dora_scale" in name:
            raise WrongFamily(f"{source} is no LoRA this can read: it has {name}")
    plain = {
        name.removeprefix("base_model.model.").replace(".default.", "."): tensor
        for name, tensor in tensors.items()
    }
    try:
        state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(plain)
    except KeyError as error:  # a lora_down without its lora_up
        name = str(error.args[0]).removeprefix("lora_unet_").partition(".")[0]
        raise _no_layer(source, name) from error
    except ValueError as error:
        raise WrongFamily(f"{source} is no LoRA this can read: {error}") from error
    numbers = {name: float(value) for name, value in state.items() if name.endswith(ALPHA)}
    named = {
        name.removeprefix("unet.").replace(f"{DOWN}{ALPHA}", ALPHA): value
        for name, value in convert_unet_state_dict_to_peft(state | (alphas or {}) | numbers).items()
    }
    for name in named:
        if not _ends(name):
            raise WrongFamily(f"{source} is no LoRA this can read: it has {name}")
    return named


def _ends(name: str) -> list[str]:
    return [end for end in (DOWN, UP, ALPHA) if name.endswith(end)]


def _change(layer: nn.Module | None, name: str, named: Named, source: Path) -> LowRank:
    if layer is None or f"{name}{DOWN}" not in named or f"{name}{UP}" not in named:
        raise _no_layer(source, name)
    weight = layer.get_parameter("weight")
    down, up = named[f"{name}{DOWN}"].flatten(1), named[f"{name}{UP}"].flatten(1)
    rank = len(down)
    if up.shape[1] != rank or (len(up), down.shape[1]) != (len(weight), weight[0].numel()):
        raise WrongFamily(
            f"{source}: the change of {name} is {len(up)} x {down.shape[1]}, the layer is "
            f"{len(weight)} x {weight[0].numel()}; it is for another model"
        )
    alpha = named.get(f"{name}{ALPHA}")
    return LowRank(weight, down, up, 1.0 if alpha is None else alpha / rank)


def _no_layer(source: Path, name: str) -> WrongFamily:
    return WrongFamily(f"{source}: there is no whole layer {name} here; it is for another model")
