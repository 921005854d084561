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


def hubert_features(name: str, models_dir: Path) -> SpeechFeatures:
    """The public HuBERT in the chunks that it runs in live.

    Raises:
        WeightsError: it is missing or damaged; the message says how to bring it.
    """
    from engine.audio.hubert import ChunkedHubert
    from engine.loaders.hubert import load_hubert
    from engine.loaders.registry import require

    model: Any = load_hubert(require(name, models_dir))
    net = ChunkedHubert(model.eval())

    def features(pcm: Pcm) -> Any:
        frames = len(pcm) // 320
        silence = np.zeros((2 * net.window.hop + net.window.ahead + 1) * 320, np.float32)
        return net.step(net.start(), np.concatenate([pcm, silence]).astype(np.float32))[:frames]

    return features
