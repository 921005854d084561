"""Speech encoders as functions from a whole sound to its features, as live streams compute them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.audio.speech_encoder import StreamingSpeechEncoder
from engine.types import Pcm

SpeechFeatures = Callable[[Pcm], Any]  # (N,) at 16 kHz -> (N // 320, W)
SPEECH_ENCODERS = ("tiny", "hubert-base", "hubert-large")


def streaming_features(encoder: StreamingSpeechEncoder) -> SpeechFeatures:
    """The bundled speech encoder over a whole clip, from a new stream's state."""

    def features(pcm: Pcm) -> Any:
        return encoder.step(encoder.start(), np.ascontiguousarray(pcm, np.float32))

    return features


def hubert_features(name: str, models_dir: Path, hop_ms: int) -> SpeechFeatures:
    """The public HuBERT in the windows that it runs in live at that hop.

    Raises:
        WeightsError: it is missing or damaged; the message says how to bring it.
    """
    from engine.loaders.hubert_motion import load_hubert_encoder

    net = load_hubert_encoder(name, models_dir, hop_ms=hop_ms)

    def features(pcm: Pcm) -> Any:
        frames = len(pcm) // 320
        silence = np.zeros(net.window.delay, np.float32)
        return net.step(net.start(), np.concatenate([pcm, silence]).astype(np.float32))[:frames]

    return features
