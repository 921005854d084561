"""Trains the audio-to-motion VAE on top of a trained speech encoder: `python -m engine.training.motion --help`.

The speech encoder is frozen; the motion network learns from its features in minutes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.config import SPEECH_HOPS_MS, EngineConfig
from engine.nets.motion_vae import MotionSettings, MotionVae
from engine.outputs import own_folder
from engine.training.data.speech_features import SPEECH_ENCODERS
from engine.training.loop import LoopSettings, run_loop
from engine.training.motion.dataset import HELD_OUT, load_animated, load_talks
from engine.training.motion.examples import (
    Example,
    MotionTraining,
    batch_of,
    choose_encoder,
    prepare,
)
from engine.training.motion.loss import loss_of, spreads
from engine.training.net_trainer import Keys, NetPlan, NetTrainer

SAVE_EVERY = 200
KEYS = Keys(net="model", mean="average", prefix="module.")


def train(
    examples: Sequence[Example],
    spread: dict[str, Tensor],
    config: MotionTraining,
    work: Path,
    minutes: float = math.inf,
) -> MotionVae:
    """Train until `config.steps` or for `minutes`; writes `motion.pt` and goes on from it."""
    path = work / "motion.pt"
    trainer = motion_trainer(examples, spread, config, path)
    loop = LoopSettings(name="motion", steps=config.steps, save_every=SAVE_EVERY, minutes=minutes)
    run_loop(trainer, path, loop)
    return load_motion(path)


def motion_trainer(
    examples: Sequence[Example], spread: dict[str, Tensor], config: MotionTraining, path: Path
) -> NetTrainer:
    """The run that `path` holds, or a new one.

    Raises:
        DataError: `path` holds another network.
        ConfigError: its folder holds files of somebody else.
    """
    names = (path.name, "speech.pt")
    own_folder(path.parent, earlier=any((path.parent / name).exists() for name in names))
    torch.manual_seed(config.seed)
    model = MotionVae(MotionSettings.hearing(examples[0].features.shape[1])).train()
    model.standardise(torch.from_numpy(np.concatenate([x.features[::7] for x in examples])).float())

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(config.seed * 1_000_003 + step)  # a resumed run equals an unbroken one
        parts = loss_of(model, batch_of(examples, config, step), spread, config.kl)
        return torch.stack(list(parts.values())).sum(), parts

    plan = NetPlan(
        steps=config.steps, warm_up=0.05 * config.steps, floor=0.02, ema=0.995, keys=KEYS
    )
    optimiser = torch.optim.AdamW(model.parameters(), config.rate, weight_decay=0.05)
    return NetTrainer(model, optimiser, loss, plan, path)


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
    parser.add_argument(
        "--speech", type=Path, required=True, help="folder of engine.training.speech.data"
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of motion.pt, and of speech.pt when tiny"
    )
    parser.add_argument("--speech-encoder", choices=SPEECH_ENCODERS, default="tiny")
    parser.add_argument(
        "--speech-hop",
        type=int,
        choices=SPEECH_HOPS_MS,
        default=EngineConfig().speech_hop_ms,
        help="ms after which a HuBERT hears again, as it is to be served; %(default)s",
    )
    parser.add_argument(
        "--speech-weights", type=Path, help="folder of speech.onnx, in place of speech.pt"
    )
    parser.add_argument("--features", type=Path, help="folder that keeps the speech features")
    parser.add_argument("--models-dir", type=Path, default=Path("models"), help="where HuBERT is")
    parser.add_argument("--steps", type=int, default=MotionTraining().steps)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = MotionTraining(steps=args.steps)
    clips = [c for c in load_animated(args.animated)[0] if c.name not in HELD_OUT]
    clips += load_talks(args.speech)
    encoder = choose_encoder(
        args.speech_encoder,
        args.work,
        args.models_dir,
        args.speech_weights,
        hop_ms=args.speech_hop,
    )
    examples = prepare(clips, encoder, config, args.features)
    train(examples, spreads(clips), config, args.work, args.minutes)


if __name__ == "__main__":
    main()
