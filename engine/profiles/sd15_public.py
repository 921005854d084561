"""The sd15 profile out of public checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.config import DiffusionSettings
from engine.loaders.control_net import SUBFOLDER, load_control_net
from engine.loaders.face_encoder import FaceAndPicture, load_encoder
from engine.loaders.files import weight_file
from engine.loaders.ip_adapter import install, read_ip_adapter
from engine.loaders.lora import fuse_lora
from engine.loaders.motion_modules import load_motion
from engine.loaders.registry import find, locate, one_file
from engine.loaders.sd15 import Sd15Files, load_tiny, load_vae
from engine.nets.control_net import AnimateControlNet
from engine.nets.identity_unet import IdentityUnet
from engine.nets.portraittalk import Networks, PortraitTalkModel
from engine.nets.projection import IdentityProjection, PlusProjection
from engine.nets.sd15_config import Sd15Config
from engine.nets.sd_codec import SdCodec
from engine.nets.text_tokens import ClipTokens, Tokenise
from engine.profiles.checkpoints import (
    BETTER_VAE,
    face_encoder_of,
    few_step_lora,
    needed_checkpoints,
)
from engine.profiles.folders import checkpoint_folders
from engine.render.sd15 import Embed


def public_parts(
    how: DiffusionSettings, config: Sd15Config, dtype: torch.dtype
) -> tuple[PortraitTalkModel, Tokenise, Embed | None]:
    """The model of `config`, what reads its words, and its face encoder (None for none).

    Raises:
        WeightsError: a checkpoint is missing (the message holds the command that brings it), damaged,
            of another family, or its licence does not allow the use.
    """
    folders = checkpoint_folders(needed_checkpoints(how), how)
    files = Sd15Files(how.sd15_file or folders["sd15"])
    unet = IdentityUnet(files.unet(config.unet, dtype=dtype), config)
    if unet.motion is not None:
        path = weight_file(folders[f"motion-{how.motion_modules}"], "diffusion_pytorch_model")
        unet.motion = load_motion(path, config, dtype=dtype)
    projection = IdentityProjection.build(config).to(dtype) if config.face_encoder else None
    embed: Embed | None = None
    if projection is not None:
        embed = load_encoder(face_encoder_of(how), folders.__getitem__)
        adapter = read_ip_adapter(one_file(how.adapter, how.models_dir))
        install(adapter, unet, projection)
        if isinstance(projection, PlusProjection):
            assert isinstance(embed, FaceAndPicture)  # of the adapter's own space
            projection.nothing.copy_(torch.from_numpy(embed.nothing))
    if few_step := few_step_lora(how):
        fuse_lora(unet.get_submodule("unet"), one_file(few_step, how.models_dir))
    control = load_control_net(
        folders["control-mediapipe-face"] / SUBFOLDER, config.unet, dtype=dtype
    )
    model = PortraitTalkModel(
        config,
        Networks(
            unet=unet.to(dtype),
            animate=AnimateControlNet(control, config).to(dtype),
            projection=projection,
            codec=_codec(how, files, folders.get("taesd"), config, dtype),
            text=files.text(config.text, dtype=dtype),
        ),
    )
    words = folders["sd15-tokenizer" if how.sd15_file else "sd15"] / "tokenizer"
    return model, ClipTokens(words), embed


def _codec(
    how: DiffusionSettings,
    files: Sd15Files,
    tiny: Path | None,
    config: Sd15Config,
    dtype: torch.dtype,
) -> SdCodec:
    scale = config.codec.output_scale
    if tiny is not None:
        net = load_tiny(tiny, config.codec, dtype=dtype)
        return SdCodec(None, net, output_scale=scale).to(dtype)
    better = locate(find(BETTER_VAE), how.models_dir)
    vae = (
        files.vae(config.codec, dtype=dtype)
        if better is None
        else load_vae(better, config.codec, dtype=dtype)
    )
    return SdCodec(vae, None, output_scale=scale).to(dtype)
