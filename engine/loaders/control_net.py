"""The MediaPipe-face ControlNet: its Stable Diffusion 1.5 subfolder, never the repository's root."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel

from engine.errors import WeightsError
from engine.loaders.files import WrongFamily, fill, read_config, read_tensors, weight_file
from engine.loaders.sd15 import check_family, check_width
from engine.nets.control_net import control_net_arguments
from engine.nets.sd15_config import UnetSizes

SUBFOLDER = "diffusion_sd15"
SD2_WIDTH = 1024


def load_control_net(
    folder: Path, sizes: UnetSizes, *, dtype: torch.dtype = torch.float32
) -> ControlNetModel:
    """A ControlNet of a diffusers folder.

    Raises:
        WeightsError: a file is missing or damaged.
        WrongFamily: it is for another Stable Diffusion, as the root of the public repository is.
    """
    if not folder.is_dir():
        raise WeightsError(f"no folder {folder}; see: portraittalk models")
    if not (folder / "config.json").is_file() and (folder / SUBFOLDER).is_dir():
        raise WeightsError(f"{folder} has no config.json; use its subfolder {SUBFOLDER}")
    config = read_config(folder)
    if config.get("cross_attention_dim") == SD2_WIDTH != sizes.cross_attention_dim:
        raise WrongFamily(
            f"{folder} is the ControlNet of Stable Diffusion 2.1, which the root of that repository "
            f"holds: use its subfolder {SUBFOLDER}"
        )
    arguments = control_net_arguments(sizes)
    check_family(config, arguments, folder)
    source = weight_file(folder, "diffusion_pytorch_model")
    tensors = read_tensors(source)
    check_width(tensors, sizes, source)
    with torch.device("meta"):
        net = ControlNetModel(**arguments)
    return fill(net, tensors, source, dtype=dtype)
