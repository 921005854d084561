"""Teaches Moonshine's encoder to hear a stream: `python -m engine.training.speech --help`.

It begins with the public weights (or another run's) and learns three things at once, each two hops
late so that 80 ms of look-ahead are used: the phone (synthetic voices know it exactly), what the
unchanged encoder hears with more of the future and without the noise, and the mouth by rule. The
recordings' own mouths are left to the motion net: a speech encoder that has seen them too hears its training
files better than any others, and what is then learnt on top of it does not carry over. A stopped
run goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from engine.loaders.packages import fetch
from engine.motion.channels import CHANNELS
from engine.nets.moonshine import SpeechSettings, StreamingMoonshine
from engine.outputs import own_folder
from engine.training.motion.dataset import (
    HELD_OUT,
    Clip,
    add_teacher,
    load_animated,
    load_synthetic,
)
from engine.training.speech.augment import Piece, cut, noise_only, roughen
from engine.training.speech.moonshine_weights import load_moonshine
from engine.training.speech.phones import PHONES
from engine.training.speech.teacher import fit_projection

DELAY = 4  # frames of 20 ms between a sound and the answer about it: the look-ahead
WARM = 12  # first frames of a piece whose answers do not count: they lack a past
WIDTH = 64  # directions of the teacher that are learnt


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechTraining:
    """One training run."""

    steps: int = 1500
    batch: int = 8
    frames: int = 120  # of 20 ms in a piece
    rate: float = 3e-4  # of the encoder; the heads, which begin at nothing, learn faster
    heads_rate: float = 1.5e-3
    animated_share: float = 0.3  # of the pieces
    noise_share: float = 0.07
    seed: int = 0


class Lessons(nn.Module):
    """The encoder and the heads that teach it; only the encoder is kept."""

    def __init__(self, settings: SpeechSettings) -> None:
        super().__init__()
        self.encoder = StreamingMoonshine(settings)
        hidden = settings.hidden
        self.phone = nn.Linear(hidden, len(PHONES))
        self.teacher = nn.Linear(hidden, WIDTH)
        self.mouth = nn.Linear(hidden, len(CHANNELS))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of each lesson."""
        features = self.encoder(batch["pcm"])
        hidden = features[:, WARM + DELAY :, : self.encoder.settings.hidden]
        late = {k: batch[k][:, WARM:-DELAY] for k in ("phone", "teacher", "mouth")}
        real, taught = batch["real"][:, None, None], batch["taught"][:, None, None]
        teacher = (self.teacher(hidden) - late["teacher"]) ** 2 * taught
        made = 1 - real
        mouth = (self.mouth(hidden) - late["mouth"] / batch["mouth_var"] ** 0.5) ** 2 * made
        known = (late["phone"] >= 0).sum().clamp_min(1)  # none in a batch of recordings alone
        phones = F.cross_entropy(
            self.phone(hidden).flatten(0, 1),
            late["phone"].flatten(),
            ignore_index=-1,
            reduction="sum",
        )
        return {
            "phone": phones / known,
            "teacher": teacher.mean() / taught.mean().clamp_min(0.05),
            "mouth": mouth.mean() / made.mean().clamp_min(0.05),
        }


WEIGHTS = {"phone": 1.0, "teacher": 1.0, "mouth": 0.5}


def batches(
    clips: Sequence[Clip], config: SpeechTraining, start: int
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Endless batches; batch i depends on the seed and i alone."""
    real = [c for c in clips if c.real]
    made = [c for c in clips if not c.real]
    share = {True: _share(real), False: _share(made)}
    step = start
    while True:
        rng = np.random.RandomState([config.seed, step])
        pieces: list[Piece] = []
        for _ in range(config.batch):
            group = real if rng.rand() < config.animated_share else made
            clip = group[rng.choice(len(group), p=share[group is real])]
            piece = cut(clip, config.frames, rng, WIDTH)
            piece.pcm = roughen(piece.pcm, rng, np.roll(pieces[-1].pcm, 999) if pieces else None)
            if rng.rand() < config.noise_share:
                _silence(piece, config.frames, rng)
            pieces.append(piece)
        yield collate(pieces)
        step += 1


def _share(clips: Sequence[Clip]) -> NDArray[np.float64]:
    lengths = np.array([len(c.mouth) for c in clips], np.float64)
    return lengths / lengths.sum()


def _silence(piece: Piece, frames: int, rng: np.random.RandomState) -> None:
    piece.pcm = noise_only(frames, rng)
    piece.phone[:] = 0
    piece.mouth[:] = 0
    piece.real = piece.taught = False


def collate(pieces: Sequence[Piece]) -> dict[str, NDArray[np.generic]]:
    """Pieces -> arrays with a batch axis."""
    arrays = {k: np.stack([getattr(p, k) for p in pieces]) for k in ("pcm", "mouth", "teacher")}
    flags = {k: np.array([getattr(p, k) for p in pieces], np.float32) for k in ("real", "taught")}
    return arrays | flags | {"phone": np.stack([p.phone for p in pieces]).astype(np.int64)}


def prepare(animated: Path, speech: Path, cache: Path, work: Path) -> list[Clip]:
    """Load every training clip with its teacher features, whitened; held-out files are left out."""
    own_work(work)
    clips = [c for c in load_animated(animated)[0] if c.name not in HELD_OUT]
    clips += load_synthetic(speech)
    taught = [c for c in clips if not c.name.startswith("espeak")]
    add_teacher(taught, cache, work / "teacher")
    path = work / "projection.npz"
    if not path.exists():
        mean, matrix = fit_projection(
            np.concatenate([c.teacher[::7] for c in taught])[:40_000], WIDTH
        )
        np.savez(path, mean=mean, matrix=matrix)
    with np.load(path) as file:
        for clip in taught:
            clip.teacher = (clip.teacher - file["mean"]) @ file["matrix"]
    return clips


def own_work(work: Path) -> None:
    """Take the folder that the speech encoder and the motion network are trained in.

    Raises:
        ConfigError: it holds files of somebody else.
    """
    names = ("speech.pt", "motion.pt", "projection.npz", "teacher")
    own_folder(work, earlier=any((work / name).exists() for name in names))


def variances(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Spread of each mouth channel, floored so that rare ones do not rule."""
    mouth = np.concatenate([c.mouth for c in clips]).var(0)
    return {"mouth_var": torch.tensor(np.maximum(mouth, 1e-3)).float()}


def train(
    clips: Sequence[Clip],
    config: SpeechTraining,
    work: Path,
    minutes: float,
    start: Path | None = None,
) -> Lessons:
    """Train until `config.steps` or for `minutes`; writes `speech.pt` and goes on from it.

    A new run begins with `start`: another run's averaged weights (`speech.pt`) or the public
    encoder (`.onnx`); without it, at random.
    """
    torch.manual_seed(config.seed)
    model = Lessons(SpeechSettings()).train()
    if start is not None and start.suffix == ".onnx":
        model.encoder.load_state_dict(load_moonshine(start).state_dict())
    elif start is not None:
        model.load_state_dict(torch.load(start, weights_only=True)["model"])
    heads = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    rates = (config.rate, config.heads_rate)
    optimiser = torch.optim.AdamW(
        [{"params": list(model.encoder.parameters())}, {"params": heads}],
        config.rate,
        (0.9, 0.98),
        weight_decay=0.01,
    )
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.997)
    )
    own_work(work)
    path, first = work / "speech.pt", 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["raw"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["step"])
    spread = variances(clips)
    began = time.monotonic()
    mean: dict[str, float] = {}
    bar = tqdm(total=config.steps, initial=first, desc="speech", unit="step")
    source = batches(clips, config, first)
    for step in range(first, config.steps):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step, config.steps)
        losses = model({k: torch.from_numpy(v) for k, v in next(source).items()} | spread)
        total = sum((WEIGHTS[k] * v for k, v in losses.items()), torch.zeros(()))
        model.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(model)
        mean = {k: 0.98 * mean.get(k, v.item()) + 0.02 * v.item() for k, v in losses.items()}
        bar.update()
        bar.set_postfix({k: f"{v:.2f}" for k, v in mean.items()}, refresh=False)
        over = time.monotonic() - began > minutes * 60
        if step % 50 == 49 or over or step == config.steps - 1:
            state = {"model": average.module.state_dict(), "raw": model.state_dict()}
            state |= {"average": average.state_dict(), "optimiser": optimiser.state_dict()}
            save(path, state | {"step": step + 1})
        if over:
            break
    bar.close()
    model.load_state_dict(average.module.state_dict())
    return model


def save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint so that a stop in the middle leaves the old one whole."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def schedule(step: int, steps: int) -> float:
    """Warm-up over 5 % of the steps, then a cosine down to 2 %."""
    fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))
    return min(1.0, (step + 1) / (0.05 * steps)) * fall


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--animated", type=Path, required=True, help="folder of the animated recordings"
    )
    parser.add_argument("--speech", type=Path, required=True, help="folder made by speech_data")
    parser.add_argument("--cache", type=Path, required=True, help="folder of downloaded packages")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=SpeechTraining().steps)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this long")
    parser.add_argument(
        "--start",
        type=Path,
        help="speech.pt of another run to begin with (default: Moonshine tiny)",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = prepare(args.animated, args.speech, args.cache, args.work)
    start = args.start or fetch("moonshine", args.cache)[0]
    train(clips, SpeechTraining(steps=args.steps), args.work, args.minutes, start)


if __name__ == "__main__":
    main()
