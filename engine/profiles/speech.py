"""The speech encoder of an engine, where it is not the bundled one: HuBERT, for every profile.

It needs torch and transformers, so live code imports this module inside a function.
"""

from __future__ import annotations

from dataclasses import replace

from engine.backends import load_backend
from engine.config import LOOKAHEAD_FRAMES, EngineConfig
from engine.errors import ConfigError
from engine.loaders.hubert_motion import SpeechMotion, load_hubert_motion, lookahead_frames
from engine.loaders.registry import check_licences, find

THREADS = 2  # of HuBERT where none are named: unlike the graphs of a frame it has work for them


def load_speech(config: EngineConfig) -> tuple[EngineConfig, SpeechMotion | None]:
    """The configuration with the look-ahead of its speech encoder, and what `AvatarEngine.load` takes.

    The encoder is None where it is the bundled one.

    Raises:
        WeightsError: a checkpoint is missing (the message holds the command that brings it), damaged,
            of another family, or its licence does not allow the use.
        ConfigError: another look-ahead was asked for.
    """
    if config.speech == "tiny":
        return config, None
    how = config.diffusion
    check_licences([find(config.speech)], how.use)
    runtime = load_backend(
        config.backend,
        threads=config.threads or THREADS,
        rows=config.batch,
        callers=max(1, config.engine_threads),
    )
    encoder, motion = load_hubert_motion(
        config.speech, how.models_dir, hop_ms=config.speech_hop_ms, runtime=runtime
    )
    frames, asked = lookahead_frames(encoder.window), config.stream.lookahead_frames
    if asked not in (LOOKAHEAD_FRAMES, frames):
        raise ConfigError(f"lookahead_frames={asked}: {config.speech} hears {frames} frames ahead")
    stream = replace(config.stream, lookahead_frames=frames)
    return replace(config, stream=stream), (encoder, motion)
