"""The sd15 profile put together: checkpoints or random weights, one model, one engine.

What needs torch is imported by this module; live code imports it inside a function, when sd15 is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.audio.speech_encoder import WIDTH
from engine.avatar import AvatarEngine
from engine.backends.cuda_graph import cuda_graph
from engine.backends.tensorrt_build import LIBRARIES
from engine.config import DiffusionSettings, EngineConfig
from engine.diffusion.samplers import make_scheduler
from engine.errors import ConfigError
from engine.loaders.face_encoder import align, check_space
from engine.loaders.registry import find, space_of
from engine.loaders.run_card import TrainedRun, find_run
from engine.motion.retarget import FaceBasis
from engine.nets.portraittalk import PortraitTalkModel
from engine.nets.precision import multiplies_bfloat16
from engine.nets.projection import PlusProjection
from engine.nets.sd15_config import ADAPTER_PROJECTION, Sd15Config
from engine.nets.text_tokens import Tokenise, WordNumbers
from engine.profiles.checkpoints import BUNDLED, face_encoder_of
from engine.profiles.engines import model_digest, when_there
from engine.profiles.few_step import check_few_step
from engine.profiles.sd15_public import public_parts
from engine.profiles.sd15_trained import trained_parts
from engine.profiles.speech import load_speech
from engine.render.sd15 import DiffusionRenderer, Embed
from engine.render.sd15_graphs import step_graph
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
    _check(config)
    config, speech_motion = load_speech(config)
    width = speech_motion[0].width if speech_motion else WIDTH
    renderer = load_renderer(config, speech_features=width)
    if config.diffusion.compile in LIBRARIES:
        change_over(config, renderer)
    return AvatarEngine.load(config, renderer=renderer, speech_motion=speech_motion)


def load_renderer(config: EngineConfig, *, speech_features: int = WIDTH) -> DiffusionRenderer:
    """What draws in the sd15 profile; raises as `load_engine` does.

    Args:
        speech_features: width of the speech encoder's features, for DiffTalk's conditioning.
    """
    how = config.diffusion
    _check(config)
    device = _device(how)
    run = find_run(how.trained) if how.trained else None
    parts = load_parts(config, speech_features, _dtype(device))
    return DiffusionRenderer(
        parts.model.to(device),
        tokenise=parts.tokenise,
        embed=parts.embed,
        depth=FaceBasis.load(config.weights / "basis.npz").depth,
        sampling=sampling_of(config, run),
        record=None if how.compile == "none" else cuda_graph,
    )


def change_over(config: EngineConfig, renderer: DiffusionRenderer) -> None:
    """Let the engine of the denoising step take over from torch as soon as it is there.

    Frames are drawn by torch until then, in recorded graphs. It has not been run on a GPU yet.

    Raises:
        BackendUnavailable: the library is not installed, or there is no GPU that it runs on.
    """
    from engine.backends.tensorrt import TensorRtBackend

    networks, runtime = renderer.networks, TensorRtBackend(config.diffusion.compile, config.batch)
    with torch.device("meta"):  # shapes alone
        shaped = PortraitTalkModel.build(networks.model.config)
    engines = [
        (step_graph(shaped.to(dtype)).spec, model_digest(config, precision))
        for precision, dtype in (("f32", torch.float32), ("f16", torch.float16))
    ]
    when_there(
        lambda: next(filter(None, (runtime.find(*engine) for engine in reversed(engines))), None),
        lambda graph: networks.take_over(graph, graph.batches),
    )


def load_parts(config: EngineConfig, speech_features: int, dtype: torch.dtype) -> Parts:
    """The networks of a configuration, as they were trained; raises as `load_engine` does."""
    how = config.diffusion
    if how.trained:
        parts = Parts(*trained_parts(find_run(how.trained), config, speech_features, dtype))
    elif how.random_weights:
        parts = random_parts(how, speech_features, dtype)
    else:
        networks = replace(Sd15Config.full(), **_chosen(how, Sd15Config.full(), speech_features))
        parts = Parts(*public_parts(how, networks, dtype))
    if isinstance(parts.model.projection, PlusProjection):
        parts.model.projection.structure = how.structure_scale
    return parts


def sampling_of(config: EngineConfig, run: TrainedRun | None = None) -> Sampling:
    """How a configuration samples its frames, of a trained run perhaps."""
    how = config.diffusion
    card = None if run is None else run.card
    return Sampling(
        sampler=how.sampler,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=how.guidance_scale,
        # Without a card: so that the last time, whose cache is kept, is one of those trained on.
        trailing=True if card is None else card.sampling.trailing,
        tiny_codec=how.codec == "tiny",
        tiny_latents=None if card is None else card.latents == "tiny",
        long_video=how.long_video,
        window=how.window,
        overlap=how.overlap,
    )


def _check(config: EngineConfig) -> None:
    """Refuse, before anything is loaded, what cannot be."""
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
    if how.adapter != "none" and not (how.trained or how.random_weights):
        encoder = face_encoder_of(how)
        space = BUNDLED if encoder == BUNDLED else space_of(encoder)
        check_space(space, find(how.adapter).space)
    _device(how)


def _check_used(how: DiffusionSettings) -> None:
    """Refuse what these settings have no use for."""
    for name in ("few_step", "sd15_file"):
        if how.random_weights and getattr(how, name):
            raise ConfigError(f"{name}: random_weights loads nothing; leave one of them out")
    if how.structure_scale != 1 and ADAPTER_PROJECTION.get(how.adapter) != "plus":
        raise ConfigError(
            f"structure_scale={how.structure_scale:g}: only adapter='faceid-plus-v2' reads the "
            "face's picture"
        )


def _device(how: DiffusionSettings) -> torch.device:
    if how.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda', but torch sees no such device; use 'cpu' or 'auto'")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(best if how.device == "auto" else how.device)
    if how.compile != "none" and device.type != "cuda":
        raise ConfigError(f"compile={how.compile!r} needs an NVIDIA GPU, and this runs on the CPU")
    return device


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def random_parts(how: DiffusionSettings, speech_features: int, dtype: torch.dtype) -> Parts:
    """A system with random weights, small or full, the same every time."""
    config = Sd15Config.small() if how.random_weights == "small" else Sd15Config.full()
    config = replace(config, **_chosen(how, config, speech_features))
    with torch.random.fork_rng():
        torch.manual_seed(RANDOM_SEED)
        model = PortraitTalkModel.build(config)
        if how.random_weights == "small":
            _enliven(model)
    if how.random_weights == "full" and multiplies_bfloat16():
        dtype = torch.bfloat16  # half the memory: it is there to be timed
    model = model.to(dtype)
    words = WordNumbers(config.text.vocabulary, config.text.length)
    embed = MeaninglessEmbedding(config.embedding_width) if config.face_encoder else None
    return Parts(model, words, embed)


def _enliven(model: PortraitTalkModel) -> None:
    """Make a system that was not trained show in its pictures what it is asked to show.

    As torch begins, layers that start at zero add nothing and all others fade what goes through them.
    """
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=weights[0].numel() ** -0.5)


def _chosen(how: DiffusionSettings, base: Sd15Config, speech_features: int) -> dict[str, Any]:
    """Fields of the networks' configuration that the settings name."""
    return {
        "face_encoder": how.adapter != "none",
        "projection": ADAPTER_PROJECTION.get(how.adapter, "faceid"),
        "conditioning": how.conditioning,
        "speech_features": speech_features,
        "history": how.history,
        "motion_modules": how.motion_modules,
        "codec": replace(base.codec, output_scale=how.output_scale),
    }


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
