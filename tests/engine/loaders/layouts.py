"""The public checkpoints' file layouts at any size: names and shapes, and tiny random files of them.

The names of one-file Stable Diffusion, IP-Adapter and LoRA files are written down here by rule; those
of diffusers' and transformers' own folders are what their classes save. The full-size table:

    python -m tests.engine.loaders.layouts tests/engine/loaders/public_layouts.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from engine.nets.control_net import control_net_arguments
from engine.nets.identity_unet import unet_arguments
from engine.nets.portraittalk import text_encoder
from engine.nets.sd15_config import Sd15Config, TextSizes, UnetSizes
from engine.nets.sd_codec import tiny_arguments, vae_arguments

Tensors = dict[str, Tensor]

UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
VAE_TOP = {"conv_norm_out": "norm_out"}
SCHEDULE = ("betas", "alphas_cumprod", "sqrt_alphas_cumprod", "log_one_minus_alphas_cumprod")
LORA_LAYERS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
    "conv1",
    "conv2",
    "conv_shortcut",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
)


def _swap(name: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        if name.startswith(ours + "."):
            return theirs + name[len(ours) :]
    return name


def ldm_unet_name(name: str, sizes: UnetSizes) -> str:
    """A UNet's diffusers name in the original one-file layout, without the prefix."""
    part, _, rest = name.partition(".")
    if part not in ("down_blocks", "mid_block", "up_blocks"):
        return _swap(name, UNET_TOP)
    per_level = sizes.layers_per_block + 1
    if part == "mid_block":
        kind, number, inner = rest.split(".", 2)
        place = 1 if kind == "attentions" else 2 * int(number)
        inner = _swap(inner, UNET_RESNET) if kind == "resnets" else inner
        return f"middle_block.{place}.{inner}"
    block_text, kind, number, inner = rest.split(".", 3)
    block, layer = int(block_text), int(number)
    inner = _swap(inner, UNET_RESNET) if kind == "resnets" else inner
    if part == "down_blocks":
        at = 1 + block * per_level + (sizes.layers_per_block if kind == "downsamplers" else layer)
        if kind == "downsamplers":
            return f"input_blocks.{at}.0.{inner.replace('conv', 'op', 1)}"
        return f"input_blocks.{at}.{1 if kind == 'attentions' else 0}.{inner}"
    at = block * per_level + (sizes.layers_per_block if kind == "upsamplers" else layer)
    if kind == "upsamplers":
        return f"output_blocks.{at}.{2 if block else 1}.{inner}"  # the deepest has no attention
    return f"output_blocks.{at}.{1 if kind == 'attentions' else 0}.{inner}"


def ldm_vae_name(name: str, levels: int) -> str:
    """An autoencoder's diffusers name in the original layout, without the prefix."""
    side, _, rest = name.partition(".")
    if side not in ("encoder", "decoder"):
        return name
    part, _, tail = rest.partition(".")
    if part == "mid_block":
        kind, number, inner = tail.split(".", 2)
        if kind == "attentions":
            return f"{side}.mid.attn_1.{_swap(inner, VAE_ATTENTION)}"
        return (
            f"{side}.mid.block_{int(number) + 1}.{inner.replace('conv_shortcut', 'nin_shortcut')}"
        )
    if part in ("down_blocks", "up_blocks"):
        block, kind, number, inner = tail.split(".", 3)
        level = int(block) if part == "down_blocks" else levels - 1 - int(block)
        stem = f"{side}.{part.removesuffix('_blocks')}.{level}"
        if kind == "resnets":
            return f"{stem}.block.{number}.{inner.replace('conv_shortcut', 'nin_shortcut')}"
        return f"{stem}.{kind.removesuffix('rs')}.{inner}".replace("sample.conv", "sample.conv")
    return f"{side}.{_swap(rest, VAE_TOP)}"


def single_file(unet: Tensors, vae: Tensors, text: Tensors, config: Sd15Config) -> Tensors:
    """The one-file layout of Stable Diffusion 1.5."""
    out = {f"model.diffusion_model.{ldm_unet_name(n, config.unet)}": t for n, t in unet.items()}
    levels = len(config.codec.vae_channels)
    for name, tensor in vae.items():
        new = ldm_vae_name(name, levels)
        conv = ".attn_1." in new and new.endswith("weight") and ".norm." not in new
        out[f"first_stage_model.{new}"] = tensor[..., None, None] if conv else tensor
    out |= {f"cond_stage_model.transformer.{n}": t for n, t in text.items()}
    device = next(iter(unet.values())).device
    return out | {name: torch.empty(1000, device=device) for name in SCHEDULE}


def public_text(text: Tensors, length: int) -> Tensors:
    """The text encoder as the public file names it."""
    device = next(iter(text.values())).device
    places = torch.arange(length, device=device)[None]
    named = {f"text_model.{n.removeprefix('text_model.')}": t for n, t in text.items()}
    return {"text_model.embeddings.position_ids": places} | named


def old_vae(vae: Tensors) -> Tensors:
    """The attention's names in autoencoder folders of that time."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {
        n.rpartition("attentions.0.")[0]
        + "attentions.0."
        + _swap(n.rpartition("attentions.0.")[2], names)
        if "attentions.0." in n
        else n: t
        for n, t in vae.items()
    }


def faceid(sizes: UnetSizes, *, tokens: int, rank: int, embedding: int = 512) -> Tensors:
    """IP-Adapter-FaceID (4 tokens, LoRA) or -portrait (16, none) with dotted group names."""
    D = sizes.cross_attention_dim
    shapes: dict[str, tuple[int, ...]] = {
        "image_proj.proj.0.weight": (2 * embedding, embedding),
        "image_proj.proj.0.bias": (2 * embedding,),
        "image_proj.proj.2.weight": (tokens * D, 2 * embedding),
        "image_proj.proj.2.bias": (tokens * D,),
        "image_proj.norm.weight": (D,),
        "image_proj.norm.bias": (D,),
    }
    channels = sizes.block_out_channels
    down = [c for c in channels[:-1] for _ in range(sizes.layers_per_block)]
    up = [c for c in channels[-2::-1] for _ in range(sizes.layers_per_block + 1)]
    for block, width in enumerate([*down, *up, channels[-1]]):  # the middle is numbered last
        for number in (2 * block, 2 * block + 1):
            context = D if number % 2 else width
            if number % 2:
                shapes[f"ip_adapter.{number}.to_k_ip.weight"] = (width, D)
                shapes[f"ip_adapter.{number}.to_v_ip.weight"] = (width, D)
            for name in ("q", "k", "v", "out") if rank else ():
                reads = context if name in "kv" else width
                stem = f"ip_adapter.{number}.to_{name}_lora"
                shapes[f"{stem}.down.weight"] = (rank, reads)
                shapes[f"{stem}.up.weight"] = (width, rank)
    return {n: torch.empty(s, device="meta") for n, s in shapes.items()}


def faceid_plus(sizes: UnetSizes, *, rank: int, patch: int = 1280, embedding: int = 512) -> Tensors:
    """IP-Adapter-FaceID-Plus, first version and v2: FaceID, and four layers that read CLIP's patches."""
    D = sizes.cross_attention_dim
    inner = 64 * max(1, D // 64)
    shapes: dict[str, tuple[int, ...]] = {
        "proj_in.weight": (D, patch),
        "proj_in.bias": (D,),
        "proj_out.weight": (D, D),
        "proj_out.bias": (D,),
        "norm_out.weight": (D,),
        "norm_out.bias": (D,),
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{layer}.{norm}.{part}": (D,) for part in ("weight", "bias")}
        shapes[f"layers.{layer}.0.to_q.weight"] = (inner, D)
        shapes[f"layers.{layer}.0.to_kv.weight"] = (2 * inner, D)
        shapes[f"layers.{layer}.0.to_out.weight"] = (D, inner)
        shapes[f"layers.{layer}.1.1.weight"] = (4 * D, D)
        shapes[f"layers.{layer}.1.3.weight"] = (D, 4 * D)
    own = {
        f"image_proj.perceiver_resampler.{n}": torch.empty(s, device="meta")
        for n, s in shapes.items()
    }
    return own | faceid(sizes, tokens=4, rank=rank, embedding=embedding)


def lcm_lora(sizes: UnetSizes, rank: int) -> Tensors:
    """LCM-LoRA: names with underscores, an alpha a layer."""
    with torch.device("meta"):
        net = UNet2DConditionModel(**unet_arguments(sizes))
        out: Tensors = {}
        for name, layer in net.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d) or not name.endswith(LORA_LAYERS):
                continue
            stem = "lora_unet_" + name.replace(".", "_")
            o, i, *kernel = layer.weight.shape
            out[f"{stem}.lora_down.weight"] = torch.empty(rank, i, *kernel)
            out[f"{stem}.lora_up.weight"] = torch.empty(o, rank, *(1 for _ in kernel))
            out[f"{stem}.alpha"] = torch.empty(())
    return out


def folder_parts(config: Sd15Config, device: str) -> dict[str, Tensors]:
    """What diffusers' and transformers' own classes save, with random (or meta) weights."""
    with torch.device(device):
        nets: dict[str, nn.Module] = {
            "unet": UNet2DConditionModel(**unet_arguments(config.unet)),
            "control_net": ControlNetModel(**control_net_arguments(config.unet)),
            "vae": AutoencoderKL(**vae_arguments(config.codec)),
            "taesd": AutoencoderTiny(**tiny_arguments(config.codec)),
            "text": text_encoder(config.text),
        }
    parts = {name: dict(net.state_dict()) for name, net in nets.items()}
    parts["text"] = public_text(parts["text"], config.text.length)
    return parts


def hubert(config: HubertConfig, device: str) -> Tensors:
    """HuBERT with the public file's names of its normed convolution."""
    with torch.device(device):
        state = dict(HubertModel(config).state_dict())
    stem = "encoder.pos_conv_embed.conv"
    state[f"{stem}.weight_g"] = state.pop(f"{stem}.parametrizations.weight.original0")
    state[f"{stem}.weight_v"] = state.pop(f"{stem}.parametrizations.weight.original1")
    return state


HUBERT_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}


def full_table() -> dict[str, dict[str, list[int]]]:
    """Every name and shape of the public files at full size."""
    config = Sd15Config.full()
    parts = folder_parts(config, "meta")
    files = dict(parts)
    files["vae_old_names"] = old_vae(parts["vae"])
    files["single_file"] = single_file(parts["unet"], parts["vae"], parts["text"], config)
    files["faceid"] = faceid(config.unet, tokens=4, rank=128)
    files["faceid_portrait"] = faceid(config.unet, tokens=16, rank=0)
    files["faceid_plus_v2"] = faceid_plus(config.unet, rank=128)
    files["lcm_lora"] = lcm_lora(config.unet, 64)
    files["hubert_base"] = hubert(HubertConfig(), "meta")
    files["hubert_large"] = hubert(HubertConfig(**HUBERT_LARGE), "meta")
    return {f: {n: list(t.shape) for n, t in tensors.items()} for f, tensors in files.items()}


def nest(flat: dict[str, list[int]]) -> dict[str, Any]:
    """Dotted names as nested objects, so that the table stays small."""
    root: dict[str, Any] = {}
    for name, shape in flat.items():
        *path, leaf = name.split(".")
        at = root
        for part in path:
            at = at.setdefault(part, {})
        at[leaf] = shape
    return root


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, list[int]]:
    """The opposite of `nest`."""
    flat: dict[str, list[int]] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def random(tensors: Tensors, seed: int, spread: float = 0.2) -> Tensors:
    """The same names and shapes with random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return {
        n: torch.randn(t.shape, generator=generator) * spread
        if t.is_floating_point()
        else t.clone()
        for n, t in tensors.items()
    }


def save(tensors: Tensors, path: Path) -> Path:
    """As safetensors; shared or strided tensors are copied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: t.clone().contiguous() for n, t in tensors.items()}, path)
    return path


def save_nested(tensors: Tensors, path: Path) -> Path:
    """As the public .bin files: a pickled dictionary of two groups."""
    groups: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    torch.save(groups, path)
    return path


def write_config(folder: Path, values: dict[str, Any], cls: str) -> None:
    """A config.json as diffusers writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": cls, **values}))


def text_config(sizes: TextSizes) -> dict[str, Any]:
    """The text encoder's config.json."""
    with torch.device("meta"):
        config = text_encoder(sizes).config.to_dict()
    return {**config, "model_type": "clip_text_model"}


def write_sd15(folder: Path, config: Sd15Config, seed: int = 0) -> dict[str, Tensors]:
    """A tiny Stable Diffusion 1.5 in both layouts, its ControlNet and TAESD; returns the weights.

    Files: unet/, vae/, text_encoder/, diffusion_sd15/, taesd/ and whole.safetensors.
    """
    torch.manual_seed(seed)
    parts = folder_parts(config, "cpu")
    for name, tensor in parts["control_net"].items():  # its last layers start at zero
        if not tensor.any():
            parts["control_net"][name] = torch.randn_like(tensor) * 0.1
    stem = "diffusion_pytorch_model.safetensors"
    for name, where, values, cls in (
        ("unet", "unet", unet_arguments(config.unet), "UNet2DConditionModel"),
        ("vae", "vae", vae_arguments(config.codec), "AutoencoderKL"),
        ("control_net", "diffusion_sd15", control_net_arguments(config.unet), "ControlNetModel"),
        ("taesd", "taesd", tiny_arguments(config.codec), "AutoencoderTiny"),
    ):
        write_config(folder / where, values, cls)
        save(parts[name], folder / where / stem)
    write_config(folder / "text_encoder", text_config(config.text), "CLIPTextModel")
    save(parts["text"], folder / "text_encoder" / "model.safetensors")
    whole = single_file(parts["unet"], parts["vae"], parts["text"], config)
    save(whole, folder / "whole.safetensors")
    return parts


if __name__ == "__main__":
    table = {name: nest(flat) for name, flat in full_table().items()}
    Path(sys.argv[1]).write_text(json.dumps(table, separators=(",", ":")) + "\n")
