"""HuBERT as the speech encoder of an engine, and the motion decoder trained on its features."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.audio.hubert import ChunkedHubert, HubertWindow, hubert_spec, window_of
from engine.backends import Backend, GraphSpec, TensorSpec
from engine.backends.torch_graph import TorchGraph
from engine.config import HOP_SAMPLES
from engine.errors import WeightsError
from engine.loaders.files import WrongFamily, fill, read_config, read_tensors
from engine.loaders.hubert import hubert_weights, load_hubert
from engine.loaders.registry import require
from engine.motion.channels import spread_matrix
from engine.motion.decoder import FRAMES, LOOKAHEAD, MOTION, MotionDecoder
from engine.nets.hubert_graph import HubertGraph
from engine.nets.motion_vae import MotionGraph, MotionSettings, MotionVae

CHECKPOINT = "motion.pt"
SpeechMotion = tuple[ChunkedHubert, MotionDecoder]
_AVERAGED = "average.module."  # the running mean of the weights, as training saves it


def motion_folder(speech: str, hop_ms: int, models_dir: Path) -> Path:
    """Folder of what belongs to a speech encoder at a hop: features of another hop are others."""
    return models_dir / f"motion-{speech}-{hop_ms}ms"


def motion_checkpoint(speech: str, hop_ms: int, models_dir: Path) -> Path:
    """Path of the motion network of a speech encoder."""
    return motion_folder(speech, hop_ms, models_dir) / CHECKPOINT


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


def hubert_module(speech: str, window: HubertWindow, models_dir: Path) -> HubertGraph:
    """The public HuBERT, to be run or exported for that window; raises as `load_hubert_motion`."""
    return HubertGraph(load_hubert(require(speech, models_dir)), window)


def exported_hubert(speech: str, hop_ms: int, models_dir: Path) -> Path:
    """Where `exports.hubert` writes the graph of these weights at that hop; other weights, other name.

    Raises:
        WeightsError: HuBERT is missing.
    """
    weights = hubert_weights(require(speech, models_dir))
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return motion_folder(speech, hop_ms, models_dir) / f"hubert-{digest[:16]}.onnx"


def load_hubert_encoder(
    speech: str, models_dir: Path, *, hop_ms: int, runtime: Backend | None = None
) -> ChunkedHubert:
    """The public HuBERT, over a stream: on `runtime` where it was exported, else in torch.

    Raises:
        WeightsError: it is missing or damaged; the message says how to bring it.
    """
    window = window_of(hop_ms)
    path = exported_hubert(speech, hop_ms, models_dir)
    if runtime is not None and path.is_file():
        width = int(read_config(require(speech, models_dir))["hidden_size"])
        return ChunkedHubert(runtime.load(hubert_spec(window, width), path), window)
    module = hubert_module(speech, window, models_dir)
    return ChunkedHubert(TorchGraph(module, hubert_spec(window, module.width)), window)


def load_hubert_motion(
    speech: str, models_dir: Path, *, hop_ms: int, runtime: Backend | None = None
) -> SpeechMotion:
    """HuBERT and its motion decoder; `speech` is "hubert-base" or "hubert-large".

    The voice activity detector needs the spectrum of the bundled speech encoder, which HuBERT lacks, so
    it is off: every sound counts as speech.

    Args:
        runtime: what runs HuBERT where `exports.hubert` made a graph of it.

    Raises:
        WeightsError: a file is missing; the message says how to download or to train it.
        WrongFamily: a file is of another model.
    """
    require(speech, models_dir)
    path = motion_checkpoint(speech, hop_ms, models_dir)
    if not path.is_file():
        raise WeightsError(
            f"no motion network for {speech} at {path}: nobody hands one out; train it with "
            f"python -m engine.training.motion --speech-encoder {speech} --speech-hop {hop_ms} "
            f"--models-dir {models_dir} --work {path.parent}, or leave --speech out"
        )
    encoder = load_hubert_encoder(speech, models_dir, hop_ms=hop_ms, runtime=runtime)
    quiet = np.zeros(2 * lookahead_samples(encoder.window), np.float32)
    silence = encoder.step(encoder.start(), quiet)[-FRAMES:]
    return encoder, MotionDecoder(load_motion(path, encoder.width), silence, vad=False)


def lookahead_samples(window: HubertWindow) -> int:
    """Look-ahead: most samples beyond the end of a frame that its motion depends on."""
    return (LOOKAHEAD - 1) * HOP_SAMPLES + window.delay


def lookahead_frames(window: HubertWindow) -> int:
    """The same in video frames."""
    return -(-lookahead_samples(window) // HOP_SAMPLES)
