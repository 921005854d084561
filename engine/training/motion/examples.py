"""Clips -> speech features and mouth channels, prepared once, and batches of them.

The speech encoder is frozen, so its features are computed once, over several degraded copies of
every sound.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from engine.motion.channels import CHANNELS
from engine.nets.moonshine import StreamingMoonshine
from engine.nets.speech_stem import PAST, SpeechSettings
from engine.training.data.speech_features import hubert_features
from engine.training.motion.dataset import Clip
from engine.training.speech.augment import cut, noise_only, roughen
from engine.training.speech.exported_encoder import load_exported

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]
SpeechFeatures = Callable[[F32], F32]  # (PAST + 320 T,) at 16 kHz -> (T, width)
DELAY = 2  # motion frames between a sound and the frame that shows it: the look-ahead
PIECE = 250  # motion frames of one prepared piece


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionTraining:
    """One training run."""

    steps: int = 900
    batch: int = 20
    frames: int = 100
    rate: float = 1.5e-3
    animated_share: float = 0.5  # of the pieces
    animated_pieces: int = 100  # prepared pieces of 10 s
    synthetic_pieces: int = 310
    noise_pieces: int = 30
    lead: int = 1  # frames of 20 ms by which mouths by rule are learnt to come early
    kl: float = 0.05
    seed: int = 0


@dataclass(slots=True)
class Example:
    """A prepared piece at 25 frames a second (T = PIECE)."""

    features: F16  # (2 T, width)
    mouth: F16  # (T, channels)
    columns: F16  # (T, 28)
    energy: F16  # (T,)
    real: bool


def load_speech_encoder(path: Path, settings: SpeechSettings | None = None) -> StreamingMoonshine:
    """The encoder out of a `speech.pt` checkpoint, ready to be used."""
    model = StreamingMoonshine(settings or SpeechSettings())
    saved = torch.load(path, weights_only=True)["model"]
    prefix = "encoder."
    model.load_state_dict({k[len(prefix) :]: v for k, v in saved.items() if k.startswith(prefix)})
    return model.eval()


def choose_encoder(
    name: str, work: Path, models_dir: Path, weights: Path | None = None, *, hop_ms: int = 160
) -> SpeechFeatures:
    """The speech encoder that a mouth is trained for.

    Args:
        name: "tiny" is that of `speech.pt` in `work` or, with `weights`, the graph in that folder;
            others are public HuBERTs out of `models_dir`, heard every `hop_ms`.

    Raises:
        WeightsError: HuBERT is missing; the message says how to bring it.
        DataError: the graph is missing or another one.
    """
    if name == "tiny":
        path = work / "speech.pt" if weights is None else weights / "speech.onnx"
        model = load_speech_encoder(path) if weights is None else load_exported(path)
        return lambda pcm: model(torch.from_numpy(pcm)[None])[0].numpy()
    hubert = hubert_features(name, models_dir, hop_ms)
    return lambda pcm: hubert(pcm[PAST:])


def energy_of(pcm: F32, frames: int) -> F32:
    """How strongly each motion frame is spoken, 0..1, relative to the loud parts of the sound.

    Args:
        pcm: (PAST + 640 * frames,) at 16 kHz.

    Returns:
        (frames,)
    """
    power = np.sqrt(np.mean(pcm[PAST:].reshape(frames, -1) ** 2, 1))
    smooth = np.convolve(np.pad(power, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return np.clip(smooth / (1.3 * np.percentile(smooth, 95) + 1e-3), 0, 1).astype(np.float32)


@torch.no_grad()
def prepare(
    clips: Sequence[Clip],
    encoder: SpeechFeatures,
    config: MotionTraining,
    store: Path | None = None,
) -> list[Example]:
    """Cut pieces of the clips, degrade them and compute their features; noise alone as well.

    Args:
        store: folder that keeps the features of each piece, by number and sound: a stopped run goes
            on there, and a change of the mouths leaves them as they are.
    """
    plan = [
        ("animated", [c for c in clips if c.real], config.animated_pieces),
        ("synthetic", [c for c in clips if not c.real], config.synthetic_pieces),
        ("noise", [], config.noise_pieces),
    ]
    examples = []
    with tqdm(total=sum(n for *_, n in plan), desc="speech features", unit="piece") as bar:
        for kind, group, count in plan:
            share = shares(group) if group else None
            for i in range(count):
                rng = np.random.RandomState([config.seed, zlib.crc32(kind.encode()), i])
                path = store / f"{kind}_{i:04d}.npz" if store is not None else None
                hear = kept(encoder, path)
                if share is None:
                    examples.append(_noise(hear, rng))
                else:
                    clip = group[rng.choice(len(group), p=share)]
                    examples.append(_spoken(clip, hear, rng, config.lead))
                bar.update()
    return examples


def kept(encoder: SpeechFeatures, path: Path | None) -> SpeechFeatures:
    """`encoder`, whose answer for one sound is kept in the file `path`."""
    if path is None:
        return encoder

    def hear(pcm: F32) -> F32:
        sound = zlib.crc32(pcm.tobytes())
        if path.exists():
            with np.load(path) as file:
                if int(file["sound"]) == sound:
                    return np.asarray(file["features"], np.float32)
        features = encoder(pcm)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, sound=sound, features=features.astype(np.float16))
        part.rename(path)
        return features

    return hear


def shares(clips: Sequence[Clip]) -> NDArray[np.float64]:
    """How often to cut from each of N clips (N,): by its length, over the root of its series'.

    The name of a clip begins with its series, or the maker of the voice, and "_".
    """
    length = np.array([len(c.mouth) for c in clips], float)
    _, series = np.unique([c.name.split("_")[0] for c in clips], return_inverse=True)
    share = length / np.sqrt(np.bincount(series, length))[series]
    return np.asarray(share / share.sum(), np.float64)


def _pairs(track: F32) -> F16:
    return track.reshape(-1, 2, track.shape[1]).mean(1).astype(np.float16)


def _spoken(clip: Clip, encoder: SpeechFeatures, rng: np.random.RandomState, lead: int) -> Example:
    piece = cut(clip, 2 * PIECE, rng, 0)
    energy = energy_of(piece.pcm, PIECE).astype(np.float16)
    clean = piece.pcm * np.float32(10 ** rng.uniform(-0.7, 0.3))
    features = encoder(clean if rng.rand() < 0.4 else roughen(piece.pcm, rng)).astype(np.float16)
    mouth = piece.mouth if clip.real else _early(piece.mouth, lead)
    return Example(features, _pairs(mouth), _pairs(piece.columns), energy, clip.real)


def _early(track: F32, frames: int) -> F32:
    """`track` (T, N), each row `frames` rows earlier; the last one stays."""
    return track[np.minimum(np.arange(len(track)) + frames, len(track) - 1)]


def _noise(encoder: SpeechFeatures, rng: np.random.RandomState) -> Example:
    features = encoder(noise_only(2 * PIECE, rng)).astype(np.float16)
    mouth, columns = (np.zeros((PIECE, n), np.float16) for n in (len(CHANNELS), 28))
    return Example(features, mouth, columns, np.zeros(PIECE, np.float16), False)


def batch_of(examples: Sequence[Example], config: MotionTraining, step: int) -> dict[str, Tensor]:
    """Batch number `step`: the features of each frame are those of `DELAY` frames later.

    Returns:
        features (B, 2 F, width), mouth (B, F, channels), columns (B, F, 28), energy (B, F) and
        real (B,), 1 for recordings.
    """
    rng = np.random.RandomState([config.seed, step])
    groups = {real: [x for x in examples if x.real == real] for real in (True, False)}
    rows: dict[str, list[NDArray[np.generic]]] = {
        k: [] for k in ("features", "mouth", "columns", "energy", "real")
    }
    for _ in range(config.batch):
        group = groups[bool(groups[True]) and rng.rand() < config.animated_share]
        example = group[rng.randint(len(group))]
        first = rng.randint(0, PIECE - config.frames - DELAY)
        span = slice(first, first + config.frames)
        late = slice(2 * (first + DELAY), 2 * (first + DELAY + config.frames))
        rows["features"].append(example.features[late])
        rows["mouth"].append(example.mouth[span])
        rows["columns"].append(example.columns[span])
        rows["energy"].append(example.energy[span])
        rows["real"].append(np.array(example.real))
    return {k: torch.from_numpy(np.stack(v).astype(np.float32)) for k, v in rows.items()}
