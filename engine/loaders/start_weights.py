"""What a trained run begins with: public checkpoints at full size, random weights at small size.

Training starts from it, and so does whoever draws with the run later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.loaders.clip_image import load_clip_image
from engine.loaders.control_net import SUBFOLDER, load_control_net
from engine.loaders.ip_adapter import install, read_ip_adapter
from engine.loaders.registry import find, one_file, require
from engine.loaders.run_card import Start
from engine.loaders.sd15 import Sd15Files, load_tiny
from engine.nets.attention import ZeroAttention
from engine.nets.control_net import AnimateControlNet
from engine.nets.identity_unet import IdentityUnet
from engine.nets.portraittalk import Networks, PortraitTalkModel, writer_config
from engine.nets.pose_guider import PoseGuider
from engine.nets.projection import IdentityProjection, PlusProjection
from engine.nets.sd15_config import Sd15Config
from engine.nets.sd_codec import SdCodec
from engine.nets.text_tokens import ClipTokens, Tokenise, WordNumbers


def start_model(start: Start, config: Sd15Config, models_dir: Path) -> PortraitTalkModel:
    """The networks of `config` that a run starts from, in float32.

    Raises:
        WeightsError: a checkpoint is missing (the message holds the command that brings it), damaged
            or of another family.
    """
    if start.kind == "public":
        return _public_model(start, config, models_dir)
    with torch.random.fork_rng():
        torch.manual_seed(start.seed)
        model = PortraitTalkModel.build(config)
        open_guidance(model)
    return model


def start_tokens(start: Start, config: Sd15Config, models_dir: Path) -> Tokenise:
    """What reads the words of such a run; raises as `start_model` does."""
    if start.kind == "public":
        return ClipTokens(require("sd15", models_dir) / "tokenizer")
    return WordNumbers(config.text.vocabulary, config.text.length)


def open_guidance(model: PortraitTalkModel) -> None:
    """Let the lines and landmarks of a random AnimateNet through from the first step on.

    A ControlNet's stem and our attentions end in zeros so that trained networks start unchanged, and
    under random weights the lines, small and rare, fade to a thousandth on their way through the
    stem. A small system has nothing to protect: its stem keeps the size of what it is given.
    """
    if not isinstance(model.animate, AnimateControlNet):
        return
    stem: Any = model.animate.net.controlnet_cond_embedding
    for conv in (stem.conv_in, *stem.blocks, stem.conv_out):
        fan_in = conv.in_channels * conv.kernel_size[0] ** 2
        nn.init.normal_(conv.weight, std=2 / fan_in**0.5)  # SiLU halves what is small
        nn.init.zeros_(conv.bias)
    for module in model.animate.modules():
        if isinstance(module, ZeroAttention):
            nn.init.xavier_uniform_(module.out.weight)


def copy_encoder(model: PortraitTalkModel) -> None:
    """Let AnimateNet begin as IdentityNet's encoder, as every ControlNet does."""
    if not isinstance(model.animate, AnimateControlNet):
        return
    learnt = model.unet.unet.state_dict()
    for name, tensor in model.animate.net.state_dict().items():
        if name in learnt and learnt[name].shape == tensor.shape and "processor" not in name:
            tensor.copy_(learnt[name])


def _public_model(start: Start, config: Sd15Config, models_dir: Path) -> PortraitTalkModel:
    """Stable Diffusion 1.5, its MediaPipe-face ControlNet, TAESD and, if wanted, a FaceID adapter.

    Without an adapter the identity attention starts from random projections with its values at
    zero, so that the first step computes what Stable Diffusion does.
    """
    files = Sd15Files(require("sd15", models_dir))
    unet = IdentityUnet(files.unet(config.unet), config)
    writer = None
    if config.reference_writer == "reference_net":
        writer = IdentityUnet(files.unet(config.unet), writer_config(config))
    projection = IdentityProjection.build(config) if config.face_encoder else None
    if projection is not None and start.adapter != "none":
        adapter = read_ip_adapter(one_file(start.adapter, models_dir))
        install(adapter, unet, projection)
        if isinstance(projection, PlusProjection):
            clip = (require("clip", models_dir) / find("clip").files[0]).parent
            nothing = load_clip_image(clip, find("clip").space).nothing()
            projection.nothing.copy_(torch.from_numpy(nothing))
    elif projection is not None:
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if name.endswith("to_v_ip.weight"):
                    parameter.zero_()
    animate: AnimateControlNet | PoseGuider
    if config.guider == "control_net":
        folder = require("control-mediapipe-face", models_dir) / SUBFOLDER
        animate = AnimateControlNet(load_control_net(folder, config.unet), config)
    else:
        animate = PoseGuider.build(config)
    tiny = load_tiny(require("taesd", models_dir), config.codec)
    networks = Networks(
        unet=unet,
        animate=animate,
        projection=projection,
        reference_net=writer,
        codec=SdCodec(files.vae(config.codec), tiny, output_scale=config.codec.output_scale),
        text=files.text(config.text),
    )
    return PortraitTalkModel(config, networks)
