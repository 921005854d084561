"""LoRA files of the few-step methods (LCM, TCD, Hyper-SD) and of IP-Adapter-FaceID, fused.

Fusing adds the low-rank product to the weights: nothing runs slower, and nothing is left to switch
off. Three ways of naming are in use; all of them are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.loaders.files import WrongFamily, read_tensors

PARTS = (
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_A.default.weight", "down"),
    (".lora_B.default.weight", "up"),
    ("_lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
    (".alpha", "alpha"),
)
PREFIXES = ("lora_unet_", "base_model.model.", "unet.")
TEXT_PREFIXES = ("lora_te_", "text_encoder.")


@dataclass(slots=True)
class LowRank:
    """One layer's change: `alpha / rank * up @ down`.

    Shapes: down (r, in) or (r, in, kh, kw); up (out, r) or (out, r, 1, 1).
    """

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


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
    """Add already read LoRA tensors; see `fuse_lora`."""
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    flat = {name.replace(".", "_"): name for name in layers}
    changes = _collect(tensors, source)
    products = []
    for name, change in changes.items():
        target = layers.get(flat.get(name.replace(".", "_"), ""))
        if target is None or change.up is None or change.down is None:
            raise WrongFamily(
                f"{source}: there is no whole layer {name} here; it is for another model"
            )
        products.append((target, change, _factor(target, change, name, source)))
    for target, change, factor in products:  # only once everything fits
        _add(target, change, strength * factor)
    return len(changes)


def _collect(tensors: Mapping[str, Tensor], source: Path) -> dict[str, LowRank]:
    changes: dict[str, LowRank] = {}
    for name, tensor in tensors.items():
        if name.startswith(TEXT_PREFIXES):
            raise WrongFamily(f"{source} also changes the text encoder, which is not supported")
        found = next(((name.removesuffix(s), part) for s, part in PARTS if name.endswith(s)), None)
        if found is None:
            raise WrongFamily(f"{source} is no LoRA this can read: it has {name}")
        layer, part = found
        for prefix in PREFIXES:
            layer = layer.removeprefix(prefix)
        layer = re.sub(r"\.processor(?=\.|$)", "", layer)
        if layer.endswith(".to_out"):
            layer += ".0"
        change = changes.setdefault(layer, LowRank())
        if part == "alpha":
            change.alpha = float(tensor)
        elif part == "down":
            change.down = tensor
        else:
            change.up = tensor
    return changes


def _factor(target: nn.Module, change: LowRank, name: str, source: Path) -> float:
    """alpha / rank, once the shapes are known to fit."""
    weight = target.get_parameter("weight")
    up, down = _flat(change)
    rank = len(down)
    if up.shape[1] != rank or (len(up), down.shape[1]) != (len(weight), weight[0].numel()):
        raise WrongFamily(
            f"{source}: the change of {name} is {len(up)} x {down.shape[1]}, the layer is "
            f"{len(weight)} x {weight[0].numel()}; it is for another model"
        )
    return (rank if change.alpha is None else change.alpha) / rank


def _flat(change: LowRank) -> tuple[Tensor, Tensor]:
    assert change.up is not None
    assert change.down is not None
    return change.up.flatten(1), change.down.flatten(1)


def _add(target: nn.Module, change: LowRank, factor: float) -> None:
    weight = target.get_parameter("weight")
    up, down = (x.float() for x in _flat(change))
    weight.add_((factor * (up @ down)).view(weight.shape).to(weight.dtype))
