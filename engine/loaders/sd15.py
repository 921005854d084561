"""Stable Diffusion 1.5: a diffusers folder or one file in the original layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextModel

from engine.errors import WeightsError
from engine.loaders.files import (
    Tensors,
    WrongFamily,
    fill,
    read_config,
    read_tensors,
    weight_file,
)
from engine.nets.identity_unet import unet_arguments
from engine.nets.portraittalk import text_encoder
from engine.nets.sd15_config import CodecSizes, TextSizes, UnetSizes
from engine.nets.sd_codec import tiny_arguments, vae_arguments

FIRST_KEY = "attn2.to_k.weight"  # its width identifies the family
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
CHECKED = (
    "block_out_channels",
    "layers_per_block",
    "norm_num_groups",
    "attention_head_dim",
    "cross_attention_dim",
    "in_channels",
    "latent_channels",
)


class Sd15Files:
    """The parts of one Stable Diffusion 1.5, each read on demand.

    Args:
        path: a folder with unet/, vae/ and text_encoder/, or one .safetensors or .ckpt file.

    Raises:
        WeightsError: `path` is neither.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise WeightsError(f"no Stable Diffusion 1.5 at {path}; see: portraittalk models")
        if path.is_dir() and not (path / "unet").is_dir():
            raise WeightsError(
                f"{path} has no folder unet; wanted a diffusers folder (unet, vae, text_encoder) "
                "or one .safetensors file"
            )
        self.path = path
        self._whole: Tensors | None = None

    def unet(self, sizes: UnetSizes, *, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
        """The denoiser.

        Raises:
            WrongFamily: it is that of Stable Diffusion 2, XL, inpainting, or another size.
        """
        arguments = unet_arguments(sizes)
        if self.path.is_file():
            source, tensors = self.path, convert_ldm_unet_checkpoint(self._single(), arguments)
        else:
            folder = self.path / "unet"
            check_family(read_config(folder), arguments, folder)
            source = weight_file(folder, "diffusion_pytorch_model")
            tensors = read_tensors(source)
        check_width(tensors, sizes, source)
        with torch.device("meta"):
            net = UNet2DConditionModel(**arguments)
        return fill(net, tensors, source, dtype=dtype)

    def vae(self, sizes: CodecSizes, *, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        """The autoencoder.

        Raises:
            WeightsError: the file is missing or damaged.
            WrongFamily: it is that of another model or size.
        """
        if self.path.is_dir():
            return load_vae(self.path / "vae", sizes, dtype=dtype)
        arguments = vae_arguments(sizes)
        whole = self._single()
        if not any(name.startswith("first_stage_model.") for name in whole):
            raise WrongFamily(
                f"{self.path} has no autoencoder in it (first_stage_model.*); bring sd-vae-ft-mse of "
                "`portraittalk models` beside it"
            )
        tensors = convert_ldm_vae_checkpoint(whole, arguments)
        with torch.device("meta"):
            net = AutoencoderKL(**arguments)
        return fill(net, tensors, self.path, dtype=dtype)

    def text(self, sizes: TextSizes, *, dtype: torch.dtype = torch.float32) -> CLIPTextModel:
        """The text encoder.

        Raises:
            WeightsError: the file is missing or damaged.
            WrongFamily: it is that of another Stable Diffusion or size.
        """
        if self.path.is_dir():
            return load_text(self.path / "text_encoder", sizes, dtype=dtype)
        return _fill_text(convert_ldm_clip_checkpoint(self._single()), sizes, self.path, dtype)

    def _single(self) -> Tensors:
        if self._whole is None:
            self._whole = read_tensors(self.path)
            if not any(name.startswith("model.diffusion_model.") for name in self._whole):
                raise WrongFamily(
                    f"{self.path} is no Stable Diffusion in one file: it has no UNet in it "
                    "(model.diffusion_model.*), as a part of a diffusers folder has not"
                )
        return self._whole


def check_family(config: Mapping[str, Any], arguments: Mapping[str, Any], folder: Path) -> None:
    """Compare a folder's config.json with the sizes asked for.

    Raises:
        WrongFamily: they differ.
    """
    for name in CHECKED:
        if name not in config or name not in arguments:
            continue
        found, wanted = config[name], arguments[name]
        found, wanted = (tuple(x) if isinstance(x, list | tuple) else x for x in (found, wanted))
        if found != wanted:
            raise WrongFamily(f"{folder}: {name} is {found}, wanted {wanted}{_family(name, found)}")


def _family(name: str, found: object) -> str:
    """The other family that a value belongs to, for the error message."""
    if name == "cross_attention_dim" and found == 1024:
        return "; this is the Stable Diffusion 2 family, whose parts do not fit 1.5"
    if name == "cross_attention_dim" and found == 2048:
        return "; this is Stable Diffusion XL, whose parts do not fit 1.5"
    if name == "in_channels" and found in (8, 9):
        return "; this is an inpainting or editing model"
    return ""


def check_width(tensors: Mapping[str, Tensor], sizes: UnetSizes, source: Path) -> None:
    """Check the family by the weights themselves.

    Args:
        tensors: the UNet's or ControlNet's, `...attn2.to_k.weight` of shape (C, cross_attention_dim).

    Raises:
        WrongFamily: their text embedding has another width, or their input other channels.
    """
    width = next((t.shape[1] for n, t in tensors.items() if n.endswith(FIRST_KEY)), None)
    if width is not None and width != sizes.cross_attention_dim:
        raise WrongFamily(
            f"{source}: cross_attention_dim is {width}, wanted {sizes.cross_attention_dim}"
            f"{_family('cross_attention_dim', width)}"
        )
    first = tensors.get("conv_in.weight")
    if first is not None and first.shape[1] != sizes.latent_channels:
        raise WrongFamily(
            f"{source}: in_channels is {first.shape[1]}, wanted {sizes.latent_channels}"
            f"{_family('in_channels', first.shape[1])}"
        )


def load_vae(
    folder: Path, sizes: CodecSizes, *, dtype: torch.dtype = torch.float32
) -> AutoencoderKL:
    """The SD autoencoder of a diffusers folder; also one with the attention's old names.

    Raises:
        WeightsError: a file is missing or damaged.
        WrongFamily: it is that of another model or size.
    """
    arguments = vae_arguments(sizes)
    check_family(read_config(folder), arguments, folder)
    source = weight_file(folder, "diffusion_pytorch_model")
    with torch.device("meta"):
        net = AutoencoderKL(**arguments)
    return fill(net, _new_names(read_tensors(source)), source, dtype=dtype)


def _new_names(tensors: Tensors) -> Tensors:
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        head, _, leaf = name.rpartition(".")
        stem, _, last = head.rpartition(".")
        if ".attentions." in name and last in OLD_NAMES:
            name, tensor = (
                f"{stem}.{OLD_NAMES[last]}.{leaf}",
                tensor.flatten(1) if leaf == "weight" else tensor,
            )
        renamed[name] = tensor
    return renamed


def load_tiny(
    folder: Path, sizes: CodecSizes, *, dtype: torch.dtype = torch.float32
) -> AutoencoderTiny:
    """TAESD of a diffusers folder.

    Raises:
        WeightsError: a file is missing or damaged.
        WrongFamily: it is the tiny autoencoder of another model or size.
    """
    arguments = tiny_arguments(sizes)
    config = read_config(folder)
    if config.get("latent_channels", 4) != 4:
        raise WrongFamily(
            f"{folder}: latent_channels is {config['latent_channels']}, wanted 4; this is the tiny "
            "autoencoder of another model"
        )
    source = weight_file(folder, "diffusion_pytorch_model")
    with torch.device("meta"):
        net = AutoencoderTiny(**arguments)
    return fill(net, read_tensors(source), source, dtype=dtype)


def load_text(
    folder: Path, sizes: TextSizes, *, dtype: torch.dtype = torch.float32
) -> CLIPTextModel:
    """The CLIP text encoder of a transformers folder.

    Raises:
        WeightsError: a file is missing or damaged.
        WrongFamily: it is that of another Stable Diffusion or size.
    """
    config = read_config(folder)
    config = config.get("text_config") or config
    for name, wanted in (("hidden_size", sizes.hidden), ("num_attention_heads", sizes.heads)):
        found = config.get(name, wanted)
        if found != wanted:
            family = _family("cross_attention_dim", found)
            raise WrongFamily(f"{folder}: {name} is {found}, wanted {wanted}{family}")
    try:
        source = weight_file(folder, "model")
    except WeightsError:
        source = weight_file(folder, "pytorch_model")
    return _fill_text(read_tensors(source), sizes, source, dtype)


def _fill_text(
    tensors: Tensors, sizes: TextSizes, source: Path, dtype: torch.dtype
) -> CLIPTextModel:
    if not tensors:
        raise WrongFamily(
            f"{source} has no CLIP text encoder of Stable Diffusion 1; version 2 uses another one"
        )
    kept = {
        name.removeprefix("text_model."): tensor
        for name, tensor in tensors.items()
        if not name.endswith("position_ids") and not name.startswith(("vision_model.", "visual_"))
    }
    for extra in ("text_projection.weight", "logit_scale"):
        kept.pop(extra, None)
    return fill(text_encoder(sizes), kept, source, dtype=dtype)
