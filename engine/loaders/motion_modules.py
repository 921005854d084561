"""AnimateDiff's motion modules: diffusers' folders and the one-file originals."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import MotionAdapter
from diffusers.models.embeddings import SinusoidalPositionalEmbedding

from engine.loaders.files import Tensors, WrongFamily, fill, read_tensors
from engine.nets.motion_modules import motion_arguments
from engine.nets.sd15_config import Sd15Config

# Parts of names in the originals (`mm_sd_v15_v2.ckpt`) and what diffusers calls them.
ORIGINAL = {
    ".temporal_transformer": "",
    ".attention_blocks.0": ".attn1",
    ".attention_blocks.1": ".attn2",
    ".ff_norm": ".norm3",
    ".norms.0": ".norm1",
    ".norms.1": ".norm2",
}
PLACES = (".pos_encoder.pe", ".pos_embed.pe")  # sines, which are computed


def load_motion(
    path: Path, config: Sd15Config, *, dtype: torch.dtype = torch.float32
) -> MotionAdapter:
    """The motion modules in a file of either kind of names.

    Raises:
        WeightsError: there is no such file, or it is damaged.
        WrongFamily: it is of another version (v2 has modules in the middle, v3 has none), or of
            another size.
    """
    tensors = {
        renamed(name): tensor
        for name, tensor in read_tensors(path).items()
        if not name.endswith(PLACES)
    }
    _check_version(tensors, config, path)
    with torch.device("meta"):
        adapter = MotionAdapter(**motion_arguments(config))
    return fill(adapter, {**places(adapter), **tensors}, path, dtype=dtype)


def renamed(name: str) -> str:
    """The name in diffusers' folders of a tensor of either kind of file."""
    name = name.removeprefix("module.")
    for original, own in ORIGINAL.items():
        name = name.replace(original, own)
    return name


def places(adapter: MotionAdapter) -> Tensors:
    """The sines that tell the frames of a window apart, which no file need hold."""
    found = {n: b for n, b in adapter.named_buffers() if n.endswith(PLACES)}
    return {
        name: SinusoidalPositionalEmbedding(like.shape[2], like.shape[1]).pe
        for name, like in found.items()
    }


def _check_version(tensors: Tensors, config: Sd15Config, path: Path) -> None:
    if not any(".motion_modules." in name for name in tensors):
        raise WrongFamily(f"{path} holds no motion modules")
    found = "v2" if any(name.startswith("mid_block.") for name in tensors) else "v3"
    if found != config.motion_modules:
        raise WrongFamily(
            f"{path} holds motion modules {found}, not {config.motion_modules}; "
            f"use --motion-modules {found}"
        )
