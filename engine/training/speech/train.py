"""Trains Moonshine's encoder to work on a stream: `python -m engine.training.speech --help`.

It begins with the public weights (or another run's) and learns three things at once, each two hops
late so that 80 ms of look-ahead are used: the phone (synthetic voices know it exactly), the features
of the unchanged encoder, which has more of the future and no noise, and the mouth by rule. The
recordings' own mouths are left to the motion network: a speech encoder that has seen them too knows
its training files better than any others, and what is then learnt on top of it does not carry over.
A stopped run goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from engine.loaders.packages import fetch
from engine.nets.speech_stem import SpeechSettings
from engine.outputs import own_folder
from engine.training.loop import LoopSettings, run_loop
from engine.training.motion.dataset import (
    HELD_OUT,
    Clip,
    add_teacher,
    load_animated,
    load_synthetic,
)
from engine.training.net_trainer import Keys, NetPlan, NetTrainer
from engine.training.speech.moonshine_weights import load_moonshine
from engine.training.speech.tasks import (
    WEIGHTS,
    WIDTH,
    SpeechTasks,
    SpeechTraining,
    batch_of,
    variances,
)
from engine.training.speech.teacher import fit_projection

SAVE_EVERY = 50
KEYS = Keys(net="raw", mean="model")


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


def train(
    clips: Sequence[Clip],
    config: SpeechTraining,
    work: Path,
    minutes: float = math.inf,
    start: Path | None = None,
) -> SpeechTasks:
    """Train until `config.steps` or for `minutes`; writes `speech.pt` and goes on from it.

    A new run begins with `start`: another run's averaged weights (`speech.pt`) or the public
    encoder (`.onnx`); without it, at random.
    """
    path = work / "speech.pt"
    trainer = speech_trainer(first_model(config, start), clips, config, path)
    loop = LoopSettings(name="speech", steps=config.steps, save_every=SAVE_EVERY, minutes=minutes)
    run_loop(trainer, path, loop)
    model = cast(SpeechTasks, trainer.net)
    model.load_state_dict(trainer.averaged())
    return model


def own_work(work: Path) -> None:
    """Take the folder that the speech encoder and the motion network are trained in.

    Raises:
        ConfigError: it holds files of somebody else.
    """
    names = ("speech.pt", "motion.pt", "projection.npz", "teacher")
    own_folder(work, earlier=any((work / name).exists() for name in names))


def first_model(
    config: SpeechTraining, start: Path | None, settings: SpeechSettings | None = None
) -> SpeechTasks:
    """The networks that a new run begins with; see `train`."""
    torch.manual_seed(config.seed)
    model = SpeechTasks(settings or SpeechSettings()).train()
    if start is not None and start.suffix == ".onnx":
        model.encoder.load_state_dict(load_moonshine(start).state_dict())
    elif start is not None:
        model.load_state_dict(torch.load(start, weights_only=True)["model"])
    return model


def speech_trainer(
    model: SpeechTasks, clips: Sequence[Clip], config: SpeechTraining, path: Path
) -> NetTrainer:
    """The run that `path` holds, or a new one from `model`.

    Raises:
        DataError: `path` holds another network.
        ConfigError: its folder holds files of somebody else.
    """
    own_work(path.parent)
    spread = variances(clips)
    heads = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    groups = [
        {"params": list(model.encoder.parameters()), "lr": config.rate},
        {"params": heads, "lr": config.heads_rate},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = {k: torch.from_numpy(v) for k, v in batch_of(clips, config, step).items()}
        losses: dict[str, Tensor] = model(batch | spread)
        return torch.stack([WEIGHTS[k] * v for k, v in losses.items()]).sum(), losses

    plan = NetPlan(
        steps=config.steps, warm_up=0.05 * config.steps, floor=0.02, ema=0.997, keys=KEYS
    )
    return NetTrainer(model, optimiser, loss, plan, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--animated", type=Path, required=True, help="folder of the animated recordings"
    )
    parser.add_argument(
        "--speech", type=Path, required=True, help="folder of engine.training.speech.data"
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of downloaded packages")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=SpeechTraining().steps)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long")
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
