"""HuBERT as the speech encoder of the sd15 profile, and the motion decoder trained on its features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.audio.hubert import FIELD, STRIDE, ChunkedHubert, HubertWindow
from engine.audio.speech_encoder import HOP
from engine.backends import GraphSpec, TensorSpec
from engine.backends.torch_graph import TorchGraph
from engine.errors import WeightsError
from engine.loaders.files import WrongFamily, fill, read_tensors
from engine.loaders.hubert import load_hubert
from engine.loaders.registry import require
from engine.motion.channels import spread_matrix
from engine.motion.decoder import FRAMES, LOOKAHEAD, MOTION, MotionDecoder
from engine.nets.motion_vae import MotionGraph, MotionSettings, MotionVae

CHECKPOINT = "motion.pt"
_AVERAGED = "average.module."  # the running mean of the weights, as training saves it


def motion_checkpoint(speech: str, models_dir: Path) -> Path:
    """Path of the motion network of a speech encoder."""
    return models_dir / f"motion-{speech}" / CHECKPOINT


def load_motion(path: Path, width: int) -> TorchGraph:
    """The motion graph of a training run, for features of that `width`.

    Raises:
        WrongFamily: it was trained on other features, or is no motion network.
        WeightsError: the file is damaged.
    """
    saved = read_tensors(path)
    weights = {n.removeprefix(_AVERAGED): t for n, t in saved.items() if n.startswith(_AVERAGED)}
    enter = weights.get("enter.0.weight")
    if enter is None:
        raise WrongFamily(f"{path} is no checkpoint of engine.training.motion.train")
    if enter.shape[1] != FRAMES * width:
        raise WrongFamily(
            f"{path} was trained on features of {enter.shape[1] // FRAMES} numbers, this speech "
            f"encoder gives {width}"
        )
    net = fill(MotionVae(MotionSettings.hearing(width)), weights, path, dtype=torch.float32)
    return TorchGraph(MotionGraph(net, spread_matrix()), motion_spec(width))


def motion_spec(width: int) -> GraphSpec:
    """Spec of the `motion` graph for features of that `width`."""
    features, *others = MOTION.inputs
    wide = TensorSpec(features.name, (*features.shape[:2], width))
    return replace(MOTION, inputs=(wide, *others))


def load_hubert_motion(speech: str, models_dir: Path) -> tuple[ChunkedHubert, MotionDecoder]:
    """HuBERT and its motion decoder; `speech` is "hubert-base" or "hubert-large".

    The voice activity detector needs the spectrum of the bundled speech encoder, which HuBERT lacks, so
    it is off: every sound counts as speech.

    Raises:
        WeightsError: a file is missing; the message says how to download or to train it.
        WrongFamily: a file is of another model.
    """
    folder = require(speech, models_dir)
    path = motion_checkpoint(speech, models_dir)
    if not path.is_file():
        raise WeightsError(
            f"no motion network for {speech} at {path}: nobody hands one out; train it with "
            f"python -m engine.training.motion --speech-encoder {speech} --models-dir {models_dir} "
            f"--work {path.parent}, or leave --speech out"
        )
    model: Any = load_hubert(folder)
    encoder = ChunkedHubert(model.eval())
    with torch.inference_mode():
        quiet = torch.zeros(2 * lookahead_samples(encoder.window)).numpy()
    silence = encoder.step(encoder.start(), quiet)[-FRAMES:]
    return encoder, MotionDecoder(load_motion(path, encoder.width), silence, vad=False)


def lookahead_samples(window: HubertWindow) -> int:
    """Look-ahead: most samples beyond a frame that its motion depends on."""
    return (FRAMES * LOOKAHEAD + window.hop + window.ahead) * STRIDE + FIELD - STRIDE


def lookahead_frames(window: HubertWindow) -> int:
    """The same in video frames."""
    return -(-lookahead_samples(window) // HOP)
