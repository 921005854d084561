"""The sd15 profile put together: checkpoints or random weights, one model, one engine.

What needs torch is imported by this module; live code imports it inside a function, when sd15 is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.audio.speech_encoder import WIDTH
from engine.avatar import AvatarEngine
from engine.backends.cuda_graph import cuda_graph
from engine.config import LOOKAHEAD_FRAMES, DiffusionSettings, EngineConfig
from engine.diffusion.samplers import make_scheduler
from engine.errors import ConfigError
from engine.loaders.control_net import SUBFOLDER, load_control_net
from engine.loaders.face_encoder import align, check_space, load_face_encoder
from engine.loaders.hubert_motion import load_hubert_motion, lookahead_frames
from engine.loaders.ip_adapter import install, read_ip_adapter
from engine.loaders.lora import fuse_lora
from engine.loaders.registry import check_licences, find, locate, one_file
from engine.loaders.run_card import TrainedRun, find_run
from engine.loaders.sd15 import Sd15Files, load_tiny, load_vae
from engine.motion.retarget import FaceBasis
from engine.nets.control_net import AnimateControlNet
from engine.nets.identity_unet import IdentityUnet
from engine.nets.portraittalk import Networks, PortraitTalkModel
from engine.nets.precision import multiplies_bfloat16
from engine.nets.projection import IdentityProjection
from engine.nets.sd15_config import Sd15Config
from engine.nets.sd_codec import SdCodec
from engine.nets.text_tokens import ClipTokens, Tokenise, WordNumbers
from engine.profiles.checkpoints import (
    BETTER_VAE,
    BUNDLED,
    few_step_lora,
    needed_checkpoints,
)
from engine.profiles.folders import checkpoint_folders
from engine.profiles.sd15_trained import trained_parts
from engine.render.sd15 import DiffusionRenderer, Embed
from engine.render.sd15_networks import Sampling
from engine.types import RgbImage

F32 = NDArray[np.float32]

RANDOM_SEED = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """A model and what feeds it."""

    model: PortraitTalkModel
    tokenise: Tokenise
    embed: Embed | None


def load_engine(config: EngineConfig) -> AvatarEngine:
    """The engine of the sd15 profile.

    Raises:
        WeightsError: a checkpoint is missing (the message holds the command that brings it), damaged,
            of another family, or its licence does not allow the use.
        ConfigError: a setting is unknown, or two of them contradict each other.
    """
    how = config.diffusion
    _check(how)
    speech_motion, width = None, WIDTH
    if how.speech != "tiny":
        check_licences([find(how.speech)], how.use)
        encoder, motion = load_hubert_motion(how.speech, how.models_dir)
        speech_motion, width = (encoder, motion), encoder.width
        config = _with_lookahead(config, lookahead_frames(encoder.window))
    renderer = load_renderer(config, speech_features=width)
    return AvatarEngine.load(config, renderer=renderer, speech_motion=speech_motion)


def load_renderer(config: EngineConfig, *, speech_features: int = WIDTH) -> DiffusionRenderer:
    """What draws in the sd15 profile; raises as `load_engine` does.

    Args:
        speech_features: width of the speech encoder's features, for DiffTalk's conditioning.
    """
    how = config.diffusion
    _check(how)
    device = _device(how)
    run = find_run(how.trained) if how.trained else None
    if run is not None:
        parts = Parts(*trained_parts(run, config, speech_features, _dtype(device)))
    else:
        build = random_parts if how.random_weights else _public_parts
        parts = build(how, speech_features, _dtype(device))
    return DiffusionRenderer(
        parts.model.to(device),
        tokenise=parts.tokenise,
        embed=parts.embed,
        depth=FaceBasis.load(config.weights / "basis.npz").depth,
        sampling=sampling_of(config, run),
        record=cuda_graph if how.compile == "cudagraphs" else None,
    )


def sampling_of(config: EngineConfig, run: TrainedRun | None = None) -> Sampling:
    """How a configuration samples its frames, of a trained run perhaps."""
    how = config.diffusion
    card = None if run is None else run.card
    return Sampling(
        sampler=how.sampler,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=how.guidance_scale,
        trailing=config.num_inference_steps <= 8 if card is None else card.sampling.trailing,
        tiny_codec=how.codec == "tiny",
        tiny_latents=None if card is None else card.latents == "tiny",
        long_video=how.long_video,
        window=how.window,
        overlap=how.overlap,
    )


def _check(how: DiffusionSettings) -> None:
    """Refuse, before anything is loaded, what cannot be."""
    make_scheduler(how.sampler)
    if how.conditioning == "difftalk" and not (how.trained or how.random_weights):
        raise ConfigError(
            "conditioning='difftalk' needs --trained RUN: no public checkpoint knows its inputs, and "
            'untrained the lips would not move; train one with conditioning = "difftalk" in [model]'
        )
    if how.adapter != "none" and not (how.trained or how.random_weights):
        check_space(_space(how.face_encoder), find(how.adapter).space)
    _device(how)


def _space(face_encoder: str) -> str:
    return BUNDLED if face_encoder == BUNDLED else find(face_encoder).space


def _with_lookahead(config: EngineConfig, frames: int) -> EngineConfig:
    """The configuration with the look-ahead that its speech encoder needs."""
    asked = config.stream.lookahead_frames
    if asked not in (LOOKAHEAD_FRAMES, frames):
        raise ConfigError(
            f"lookahead_frames={asked}: {config.diffusion.speech} hears {frames} frames ahead"
        )
    return replace(config, stream=replace(config.stream, lookahead_frames=frames))


def _device(how: DiffusionSettings) -> torch.device:
    if how.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda', but torch sees no such device; use 'cpu' or 'auto'")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(best if how.device == "auto" else how.device)
    if how.compile == "cudagraphs" and device.type != "cuda":
        raise ConfigError("compile='cudagraphs' needs an NVIDIA GPU, and this runs on the CPU")
    return device


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def random_parts(how: DiffusionSettings, speech_features: int, dtype: torch.dtype) -> Parts:
    """A system with random weights, small or full, the same every time."""
    config = Sd15Config.small() if how.random_weights == "small" else Sd15Config.full()
    config = replace(config, conditioning=how.conditioning, speech_features=speech_features)
    with torch.random.fork_rng():
        torch.manual_seed(RANDOM_SEED)
        model = PortraitTalkModel.build(config)
    if how.random_weights == "full" and multiplies_bfloat16():
        dtype = torch.bfloat16  # half the memory: it is there to be timed
    model = model.to(dtype)
    words = WordNumbers(config.text.vocabulary, config.text.length)
    return Parts(model, words, MeaninglessEmbedding(config.face_embedding))


class MeaninglessEmbedding:
    """Stands in for a recognition network beside random weights: another face, other numbers."""

    def __init__(self, width: int) -> None:
        rng = np.random.default_rng(RANDOM_SEED)
        self._mixing = rng.standard_normal((3 * 8 * 8, width)).astype(np.float32)

    def __call__(self, rgb: RgbImage, landmarks: F32) -> F32:
        """Unit vector (width,) of the face with `landmarks` (478, 2) in pixels of `rgb`."""
        blocks = align(rgb, landmarks).reshape(3, 8, 14, 8, 14).mean((2, 4)).reshape(-1)
        mixed = (blocks / 127.5 - 1) @ self._mixing
        return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def _public_parts(how: DiffusionSettings, speech_features: int, dtype: torch.dtype) -> Parts:
    config = Sd15Config(
        face_encoder=how.adapter != "none",
        projection="portrait" if how.adapter == "faceid-portrait" else "faceid",
        conditioning=how.conditioning,
        speech_features=speech_features,
    )
    folders = checkpoint_folders(needed_checkpoints(how), how)
    files = Sd15Files(folders["sd15"])
    unet = IdentityUnet(files.unet(config.unet, dtype=dtype), config)
    projection = IdentityProjection.build(config).to(dtype) if config.face_encoder else None
    embed: Embed | None = None
    if projection is not None:
        embed = load_face_encoder(how.face_encoder, folders[how.face_encoder])
        adapter = read_ip_adapter(one_file(how.adapter, how.models_dir))
        install(adapter, unet, projection)
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
    return Parts(model, ClipTokens(folders["sd15"] / "tokenizer"), embed)


def _codec(
    how: DiffusionSettings,
    files: Sd15Files,
    tiny: Path | None,
    config: Sd15Config,
    dtype: torch.dtype,
) -> SdCodec:
    if tiny is not None:
        return SdCodec(None, load_tiny(tiny, config.codec, dtype=dtype))
    better = locate(find(BETTER_VAE), how.models_dir)
    vae = (
        files.vae(config.codec, dtype=dtype)
        if better is None
        else load_vae(better, config.codec, dtype=dtype)
    )
    return SdCodec(vae, None)
