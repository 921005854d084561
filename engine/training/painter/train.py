"""Trains the painter, the networks that draw the crop: `python -m engine.training.painter --help`."""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.loaders.lpips import Lpips
from engine.nets.painter import Painter
from engine.outputs import own_folder
from engine.training.loop import LoopSettings, Smoothed, Values, is_due, run_loop
from engine.training.net_trainer import Keys, NetPlan, NetTrainer
from engine.training.painter.evaluate import evaluate, sheet
from engine.training.painter.loss import PainterLoss, PainterTraining
from engine.training.painter.pairs import Pairs, Triple, load_people, mirror_order

HOLD_OUT = 40  # every 40th person is never trained on
SAVE_EVERY = 250
KEYS = Keys(net="net", mean="ema")
Batches = Callable[[int], Triple]  # number of the step -> its batch


def painter_trainer(
    settings: PainterTraining,
    perceptual: nn.Module,
    batches: Batches,
    path: Path,
    start: Path | None = None,
) -> NetTrainer:
    """The run that `path` holds, or a new one.

    Args:
        start: `painter.safetensors` whose weights a new run begins with; without it, at random.

    Raises:
        DataError: `path` holds another network.
    """
    torch.manual_seed(settings.seed)
    net = _channels_last(Painter())
    if start is not None and not path.exists():
        net.load_state_dict({name: tensor.float() for name, tensor in load_file(start).items()})
    loss = PainterLoss(net, settings, perceptual)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return loss(batches(step), step)

    plan = NetPlan(
        steps=settings.steps,
        warm_up=settings.warm_up,
        floor=0.05,
        ema=settings.ema,
        ema_warm_up=20,
        keys=KEYS,
    )
    optimiser = torch.optim.AdamW(
        net.parameters(), settings.rate, betas=(0.9, 0.98), weight_decay=1e-4
    )
    return NetTrainer(net, optimiser, loss_of_step, plan, path)


def compile_parts(net: Painter) -> None:
    """Compile what runs every step (minutes once, then a third less time a step)."""
    for module in (net.geometry, net.identity_net, net.decoder):
        module.compile(dynamic=False)


def batch_of(pairs: Pairs, settings: PainterTraining, step: int) -> Triple:
    """The batch of one step: the same whether the run was broken off before it or not."""
    return pairs.batch(settings.batch, np.random.RandomState([settings.seed, step]))


class Feed:
    """Draws the batches of the steps from `first` on, in order, on a thread of its own."""

    def __init__(self, pairs: Pairs, settings: PainterTraining) -> None:
        self._pairs, self._settings = pairs, settings
        self._ready: queue.Queue[tuple[int, Triple]] = queue.Queue(4)
        self._thread: threading.Thread | None = None

    def __call__(self, step: int) -> Triple:
        """The batch of the next step; the first call says where to begin."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._draw, args=(step,), daemon=True)
            self._thread.start()
        drawn, batch = self._ready.get()
        assert drawn == step, f"batches are drawn in order: {drawn}, not {step}"
        return batch

    def _draw(self, first: int) -> None:
        for step in range(first, self._settings.steps):
            self._ready.put((step, batch_of(self._pairs, self._settings, step)))


class Progress:
    """Writes figures and a sheet of held-out people into the run folder as it is trained."""

    def __init__(
        self, trainer: NetTrainer, perceptual: nn.Module, held_out: Triple, folder: Path
    ) -> None:
        self._trainer, self._perceptual = trainer, perceptual
        self._held_out, self._folder, self._smooth = held_out, folder, Smoothed()

    def __call__(self, step: int, values: Values) -> Values:
        """Take a step's values in; their running means."""
        smooth = self._smooth(step, values)
        if is_due(step, SAVE_EVERY, self._trainer.plan.steps):
            net = _channels_last(Painter())
            net.load_state_dict(self._trainer.averaged())
            sheet(net, self._held_out, self._folder / f"sheet_{step:06d}.png")
            table = evaluate(net, self._held_out, self._perceptual)
            row = {"step": step, "time": time.time(), "loss": smooth, "held_out": table}
            with (self._folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        return smooth


def _channels_last(net: Painter) -> Painter:
    return cast(Painter, net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="folders of `faces` chunks"
    )
    parser.add_argument("--run", type=Path, required=True, help="checkpoints and sheets go here")
    parser.add_argument("--cache", type=Path, required=True, help="folder of downloaded packages")
    parser.add_argument("--steps", type=int, default=PainterTraining().steps)
    parser.add_argument(
        "--start", type=Path, help="painter.safetensors of an earlier run to begin with"
    )
    parser.add_argument("--rate", type=float, default=PainterTraining().rate)
    parser.add_argument(
        "--full-noise",
        type=float,
        default=PainterTraining().full_noise,
        help="share of samples that start from pure noise, where the sampler is not continued; "
        "below 1 for a first run",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile", action="store_true", help="compile the networks first (minutes)"
    )
    return parser


def main() -> None:
    """Train, resuming the run folder when it has a checkpoint."""
    args = _parser().parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    settings = PainterTraining(steps=args.steps, rate=args.rate, full_noise=args.full_noise)
    own_folder(args.run, earlier=(args.run / "painter.pt").exists())
    (args.run / "config.json").write_text(json.dumps(asdict(settings), indent=1))

    people = [person for folder in args.data for person in load_people(folder)]
    mirror = mirror_order(people)
    held_out = Pairs(people[::HOLD_OUT], mirror, augment=False).fixed()
    pairs = Pairs([p for i, p in enumerate(people) if i % HOLD_OUT], mirror)
    perceptual, path = Lpips(args.cache), args.run / "painter.pt"
    trainer = painter_trainer(settings, perceptual, Feed(pairs, settings), path, args.start)
    if args.compile:
        compile_parts(cast(Painter, trainer.net))
    loop = LoopSettings(name="painter", steps=settings.steps, save_every=SAVE_EVERY)
    run_loop(trainer, path, loop, Progress(trainer, perceptual, held_out, args.run))


if __name__ == "__main__":
    main()
