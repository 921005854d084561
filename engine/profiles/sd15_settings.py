"""What the settings of the sd15 profile ask for that cannot be, and the device they name."""

from __future__ import annotations

import torch

from engine.config import DiffusionSettings, EngineConfig
from engine.diffusion.samplers import make_scheduler
from engine.errors import ConfigError
from engine.loaders.face_encoder import check_space
from engine.loaders.registry import find, space_of
from engine.nets.sd15_config import ADAPTER_PROJECTION
from engine.profiles.checkpoints import BUNDLED, face_encoder_of
from engine.profiles.few_step import check_few_step


def check(config: EngineConfig) -> None:
    """Refuse, before anything is loaded, what cannot be.

    Raises:
        ConfigError: a setting, or two of them together; the message says what to do.
    """
    how = config.diffusion
    make_scheduler(how.sampler)
    check_few_step(config)
    _check_used(how)
    if how.conditioning == "difftalk" and not (how.trained or how.random_weights):
        raise ConfigError(
            "conditioning='difftalk' needs --trained RUN: no public checkpoint knows its inputs, and "
            'untrained the lips would not move; train one with conditioning = "difftalk" in [model]'
        )
    if how.conditioning == "difftalk" and config.speech_hop_ms != EngineConfig().speech_hop_ms:
        raise ConfigError(
            f"speech_hop_ms={config.speech_hop_ms}: clips for conditioning='difftalk' are prepared at "
            f"{EngineConfig().speech_hop_ms}"
        )
    if how.injection == "cross_attention" and not (how.trained or how.random_weights):
        raise ConfigError(
            "injection='cross_attention' needs --trained RUN: a public ControlNet is added, and nothing has "
            'learnt to attend to it; train one with injection = "cross_attention" in [model]'
        )
    if how.adapter != "none" and not (how.trained or how.random_weights):
        encoder = face_encoder_of(how)
        space = BUNDLED if encoder == BUNDLED else space_of(encoder)
        check_space(space, find(how.adapter).space)
    device_of(how)


def _check_used(how: DiffusionSettings) -> None:
    """Refuse what these settings have no use for."""
    for name in ("few_step", "sd15_file"):
        if how.random_weights and getattr(how, name):
            raise ConfigError(f"{name}: random_weights loads nothing; leave one of them out")
    if how.start == "noise" and how.start_strength != DiffusionSettings().start_strength:
        raise ConfigError(
            f"start_strength={how.start_strength:g}: only start='last' begins from it; choose that too"
        )
    if how.structure_scale != 1 and ADAPTER_PROJECTION.get(how.adapter) != "plus":
        raise ConfigError(
            f"structure_scale={how.structure_scale:g}: only adapter='faceid-plus-v2' reads the "
            "face's picture"
        )


def device_of(how: DiffusionSettings) -> torch.device:
    """Where the networks run.

    Raises:
        ConfigError: torch sees no such device, or it has no use for `compile`.
    """
    if how.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda', but torch sees no such device; use 'cpu' or 'auto'")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(best if how.device == "auto" else how.device)
    if how.compile != "none" and device.type != "cuda":
        raise ConfigError(f"compile={how.compile!r} needs an NVIDIA GPU, and this runs on the CPU")
    return device
