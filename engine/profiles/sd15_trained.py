"""A trained run rebuilt exactly as it was trained: what it starts from, its stages, its face encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.backends import load_backend
from engine.config import EngineConfig
from engine.diffusion.samplers import make_scheduler, set_steps
from engine.errors import ConfigError
from engine.loaders.face_encoder import load_encoder
from engine.loaders.lora import fuse_lora
from engine.loaders.registry import one_file
from engine.loaders.run_card import RunSampling, TrainedRun
from engine.loaders.start_weights import start_model, start_tokens
from engine.loaders.trained import load_stages
from engine.nets.portraittalk import PortraitTalkModel
from engine.nets.text_tokens import Tokenise
from engine.profiles.checkpoints import BUNDLED, encoder_of, few_step_lora, run_checkpoints
from engine.profiles.folders import checkpoint_folders
from engine.profiles.run_settings import check_run
from engine.render.sd15 import Embed
from engine.render.specs import ENROLL
from engine.render.tiny_embedding import TinyEmbedder


def trained_parts(
    run: TrainedRun, config: EngineConfig, speech_features: int, dtype: torch.dtype
) -> tuple[PortraitTalkModel, Tokenise, Embed | None]:
    """The model of a run, what reads its words, and its face encoder (None for none).

    Args:
        speech_features: width of the speech encoder's features, for DiffTalk's conditioning.

    Raises:
        ConfigError: the settings are not those of the run, or this version samples otherwise.
        WeightsError: a checkpoint is missing, damaged, or not what the run was trained on.
    """
    how, card = config.diffusion, run.card
    check_run(run, config)
    _check_times(card.sampling, run.folder)
    heard = card.networks.speech_features
    if card.networks.difftalk and heard != speech_features:
        raise ConfigError(
            f"speech={config.speech!r} gives {speech_features} numbers, {run.folder} was trained on speech "
            f"features of {heard}; choose that encoder with --speech"
        )
    encoder = encoder_of(run)
    folders = checkpoint_folders(run_checkpoints(run, how, encoder), how)
    embed = _embedder(run, encoder, folders, config)
    model = start_model(card.start, card.networks, how.models_dir)
    load_stages(model, card.start, run.folders)
    if few_step := few_step_lora(how):  # over what was trained, which would overwrite it
        fuse_lora(model.unet.get_submodule("unet"), one_file(few_step, how.models_dir))
    return model.to(dtype), start_tokens(card.start, card.networks, how.models_dir), embed


def _check_times(own: RunSampling, folder: Path) -> None:
    scheduler = make_scheduler(own.sampler, trailing=own.trailing)
    times = tuple(int(t) for t in set_steps(scheduler, own.num_inference_steps))
    if times != own.times:
        raise ConfigError(
            f"{folder} was trained with {own.sampler} at times {own.times}, this version takes "
            f"{times}; use the diffusers version that trained it"
        )


def _embedder(
    run: TrainedRun, encoder: str, folders: dict[str, Path], config: EngineConfig
) -> Embed | None:
    face = run.card.face
    if face is None:
        return None
    if encoder == BUNDLED:
        runtime = load_backend(config.backend, threads=max(1, config.threads))
        bundled = TinyEmbedder(runtime.load(ENROLL, config.weights / f"{ENROLL.name}.onnx"))
        made: Embed = bundled
        width = bundled.width
    else:
        loaded = load_encoder(encoder, folders.__getitem__)
        made, width = loaded, loaded.width
    if width != face.width:
        raise ConfigError(
            f"{run.folder} was trained on face embeddings of {face.width} numbers, {encoder} gives "
            f"{width}"
        )
    return made
