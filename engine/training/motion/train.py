"""Trains the audio-to-motion VAE on top of a trained speech encoder: `python -m engine.training.motion --help`.

The speech encoder is frozen, so its features are computed once, over several roughened copies of every sound;
the motion net then learns from them in minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from engine.motion.channels import CHANNELS, group_matrix
from engine.nets.moonshine import PAST, SpeechSettings, StreamingMoonshine
from engine.nets.motion_vae import Decoded, MotionSettings, MotionVae
from engine.outputs import own_folder
from engine.training.commands import SPEECH_ENCODERS, hubert_features
from engine.training.motion.dataset import HELD_OUT, Clip, load_animated, load_synthetic
from engine.training.speech.augment import cut, noise_only, roughen
from engine.training.speech.train import save, schedule

F16 = NDArray[np.float16]
Hear = Callable[[NDArray[np.float32]], NDArray[np.float32]]
DELAY = 2  # motion frames between a sound and its mouth: the look-ahead
WARM = 12  # frames of a piece whose answers do not count
PIECE = 250  # motion frames of one prepared piece


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionTraining:
    """One training run."""

    steps: int = 600
    batch: int = 20
    frames: int = 100
    rate: float = 1.5e-3
    animated_share: float = 0.7  # of the pieces
    animated_pieces: int = 700  # prepared pieces of 10 s
    synthetic_pieces: int = 320
    noise_pieces: int = 30
    kl: float = 0.05
    seed: int = 0


@dataclass(slots=True)
class Lesson:
    """A prepared piece at 25 frames a second (T = PIECE)."""

    features: F16  # (2 T, width)
    mouth: F16  # (T, channels)
    columns: F16  # (T, 28)
    energy: F16  # (T,)
    real: bool


def load_ear(path: Path, settings: SpeechSettings | None = None) -> StreamingMoonshine:
    """The encoder out of a `speech.pt` checkpoint, ready to be used."""
    model = StreamingMoonshine(settings or SpeechSettings())
    saved = torch.load(path, weights_only=True)["model"]
    prefix = "encoder."
    model.load_state_dict({k[len(prefix) :]: v for k, v in saved.items() if k.startswith(prefix)})
    return model.eval()


def energy_of(pcm: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """How strongly each motion frame is spoken, 0..1, relative to the loud parts of the sound."""
    power = np.sqrt(np.mean(pcm[PAST:].reshape(frames, -1) ** 2, 1))
    smooth = np.convolve(np.pad(power, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return np.clip(smooth / (1.3 * np.percentile(smooth, 95) + 1e-3), 0, 1).astype(np.float32)


def streaming_features(model: StreamingMoonshine) -> Hear:
    """The bundled speech encoder as a function: (PAST + 320 T,) -> (T, width)."""
    return lambda pcm: model(torch.from_numpy(pcm)[None])[0].numpy()


def choose_encoder(name: str, work: Path, models_dir: Path) -> Hear:
    """The speech encoder of `speech.pt` in `work` for "tiny", else the public HuBERT out of `models_dir`.

    Raises:
        WeightsError: HuBERT is missing; the message says how to bring it.
    """
    if name == "tiny":
        return streaming_features(load_ear(work / "speech.pt"))
    hubert = hubert_features(name, models_dir)
    return lambda pcm: hubert(pcm[PAST:])


@torch.no_grad()
def prepare(clips: Sequence[Clip], encoder: Hear, config: MotionTraining) -> list[Lesson]:
    """Cut, roughen and hear pieces of the clips, and of noise alone.

    Args:
        encoder: sound (PAST + 320 T,) at 16 kHz -> features (T, width).
    """
    rng = np.random.RandomState(config.seed)
    plan = [(True, config.animated_pieces), (False, config.synthetic_pieces)]
    lessons = []
    with tqdm(
        total=sum(n for _, n in plan) + config.noise_pieces, desc="hearing", unit="piece"
    ) as bar:
        for real, count in plan:
            group = [c for c in clips if c.real == real]
            share = shares(group)
            for _ in range(count):
                clip = group[rng.choice(len(group), p=share)]
                lessons.append(_hear(clip, encoder, rng))
                bar.update()
        for _ in range(config.noise_pieces):
            lessons.append(_hear_noise(encoder, rng))
            bar.update()
    return lessons


def shares(clips: Sequence[Clip]) -> NDArray[np.float64]:
    """How often to cut from each clip: by its length, over the root of what its series has.

    The name of a clip begins with its series, or the maker of the voice, and "_".
    """
    length = np.array([len(c.mouth) for c in clips], float)
    _, series = np.unique([c.name.split("_")[0] for c in clips], return_inverse=True)
    share = length / np.sqrt(np.bincount(series, length))[series]
    return np.asarray(share / share.sum(), np.float64)


def _pairs(track: NDArray[np.float32]) -> F16:
    return track.reshape(-1, 2, track.shape[1]).mean(1).astype(np.float16)


def _hear(clip: Clip, encoder: Hear, rng: np.random.RandomState) -> Lesson:
    piece = cut(clip, 2 * PIECE, rng, 0)
    energy = energy_of(piece.pcm, PIECE).astype(np.float16)
    clean = piece.pcm * np.float32(10 ** rng.uniform(-0.7, 0.3))
    heard = encoder(clean if rng.rand() < 0.4 else roughen(piece.pcm, rng)).astype(np.float16)
    return Lesson(heard, _pairs(piece.mouth), _pairs(piece.columns), energy, clip.real)


def _hear_noise(encoder: Hear, rng: np.random.RandomState) -> Lesson:
    blank = [np.zeros((PIECE, n), np.float16) for n in (len(CHANNELS), 28)]
    heard = encoder(noise_only(2 * PIECE, rng)).astype(np.float16)
    return Lesson(heard, blank[0], blank[1], np.zeros(PIECE, np.float16), False)


def batch_of(lessons: Sequence[Lesson], config: MotionTraining, step: int) -> dict[str, Tensor]:
    """Batch number `step`: the features of each frame are heard `DELAY` frames after it."""
    rng = np.random.RandomState([config.seed, step])
    groups = {True: [x for x in lessons if x.real], False: [x for x in lessons if not x.real]}
    rows: dict[str, list[NDArray[np.generic]]] = {
        k: [] for k in ("features", "mouth", "columns", "energy", "real")
    }
    for _ in range(config.batch):
        group = groups[bool(groups[True]) and rng.rand() < config.animated_share]
        lesson = group[rng.randint(len(group))]
        first = rng.randint(0, PIECE - config.frames - DELAY)
        span = slice(first, first + config.frames)
        rows["features"].append(
            lesson.features[2 * (first + DELAY) : 2 * (first + DELAY + config.frames)]
        )
        rows["mouth"].append(lesson.mouth[span])
        rows["columns"].append(lesson.columns[span])
        rows["energy"].append(lesson.energy[span])
        rows["real"].append(np.array(lesson.real))
    return {k: torch.from_numpy(np.stack(v).astype(np.float32)) for k, v in rows.items()}


def loss_of(
    model: MotionVae, batch: dict[str, Tensor], spread: dict[str, Tensor], kl: float
) -> dict[str, Tensor]:
    """Parts of the loss: answers of both ways, their changes in time, the KL, and how well the
    animators' mouths are followed."""
    told, likely, gap = model.learn(batch["features"], batch["real"][:, None], batch["mouth"])
    real = batch["real"][:, None, None]
    scale = spread["mouth_var"][batch["real"].long()][:, None]
    animated, groups = batch["real"] > 0, torch.from_numpy(group_matrix())
    sums = (batch["mouth"] @ groups)[animated, WARM:]

    def miss(answer: Decoded) -> Tensor:
        error = (answer.channels - batch["mouth"])[:, WARM:]
        channels = (error**2 / scale).mean()
        motion = (error.diff(dim=1) ** 2 / scale).mean()
        columns = ((answer.columns - batch["columns"]) ** 2 / spread["columns_var"] * real)[
            :, WARM:
        ]
        columns = columns.mean() / real.mean().clamp_min(0.05)
        followed = concordance((answer.channels @ groups)[animated, WARM:], sums)
        return channels + 0.2 * motion + columns + 3 * (1 - followed).mean()

    energy = ((likely.energy[..., 0] - batch["energy"])[:, WARM:] ** 2).mean()
    return {"likely": miss(likely), "told": 0.3 * miss(told), "kl": kl * gap, "energy": energy}


def concordance(a: Tensor, b: Tensor) -> Tensor:
    """Lin's concordance of two tracks (B, T, N), one by one (N,) (Biometrics 45, 1989); 0 of nothing.

    Unlike a squared error it does not reward answers that keep to the mean.
    """
    a, b = a.flatten(0, 1), b.flatten(0, 1)
    if not len(a):
        return a.new_zeros(a.shape[1])
    near, far = a - a.mean(0), b - b.mean(0)
    apart = (a.mean(0) - b.mean(0)) ** 2
    return 2 * (near * far).mean(0) / ((near**2).mean(0) + (far**2).mean(0) + apart + 1e-4)


def train(
    lessons: Sequence[Lesson],
    spread: dict[str, Tensor],
    config: MotionTraining,
    work: Path,
    minutes: float,
) -> MotionVae:
    """Train until `config.steps` or for `minutes`; writes `motion.pt` and goes on from it."""
    own_folder(work, earlier=any((work / name).exists() for name in ("motion.pt", "speech.pt")))
    torch.manual_seed(config.seed)
    model = MotionVae(MotionSettings.hearing(lessons[0].features.shape[1])).train()
    model.standardise(torch.from_numpy(np.concatenate([x.features[::7] for x in lessons])).float())
    optimiser = torch.optim.AdamW(model.parameters(), config.rate, weight_decay=0.05)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    path, first = work / "motion.pt", 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["step"])
    began = time.monotonic()
    mean: dict[str, float] = {}
    bar = tqdm(total=config.steps, initial=first, desc="motion", unit="step")
    for step in range(first, config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.rate * schedule(step, config.steps)
        losses = loss_of(model, batch_of(lessons, config, step), spread, config.kl)
        optimiser.zero_grad(set_to_none=True)
        sum(losses.values(), torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(model)
        mean = {k: 0.98 * mean.get(k, v.item()) + 0.02 * v.item() for k, v in losses.items()}
        bar.update()
        bar.set_postfix({k: f"{v:.3f}" for k, v in mean.items()}, refresh=False)
        over = time.monotonic() - began > minutes * 60
        if step % 200 == 199 or over or step == config.steps - 1:
            state = {"model": model.state_dict(), "average": average.state_dict()}
            save(path, state | {"optimiser": optimiser.state_dict(), "step": step + 1})
        if over:
            break
    bar.close()
    return load_motion(path)


def spreads(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Variance of the channels by rule and as animated (2, channels), and of the columns (28,)."""
    by_source = [
        np.concatenate([c.mouth for c in clips if c.real == real]).var(0) for real in (False, True)
    ]
    columns = np.concatenate([c.columns for c in clips]).var(0)
    return {
        "mouth_var": torch.tensor(np.maximum(by_source, 3e-4)).float(),
        "columns_var": torch.tensor(np.maximum(columns, 3e-4)).float(),
    }


def load_motion(path: Path) -> MotionVae:
    """The averaged network out of a `motion.pt` checkpoint, ready to be used."""
    saved = torch.load(path, weights_only=True)["average"]
    weights = {k.removeprefix("module."): v for k, v in saved.items() if k.startswith("module.")}
    model = MotionVae(MotionSettings.hearing(weights["enter.0.weight"].shape[1] // 2))
    model.load_state_dict(weights)
    return model.eval()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--animated", type=Path, required=True, help="folder of the animated recordings"
    )
    parser.add_argument("--speech", type=Path, required=True, help="folder made by speech_data")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of motion.pt, and of speech.pt when tiny"
    )
    parser.add_argument("--speech-encoder", choices=SPEECH_ENCODERS, default="tiny")
    parser.add_argument("--models-dir", type=Path, default=Path("models"), help="where HuBERT is")
    parser.add_argument("--steps", type=int, default=MotionTraining().steps)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = MotionTraining(steps=args.steps)
    clips = [c for c in load_animated(args.animated)[0] if c.name not in HELD_OUT]
    clips += load_synthetic(args.speech)
    encoder = choose_encoder(args.speech_encoder, args.work, args.models_dir)
    lessons = prepare(clips, encoder, config)
    train(lessons, spreads(clips), config, args.work, args.minutes)


if __name__ == "__main__":
    main()
