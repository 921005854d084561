"""A stage trained into a run folder: settings, curves, sheets of samples, and going on.

| file | holds |
| --- | --- |
| `settings.json` | what the run was begun with; a resumed run must agree |
| `checkpoint.pt`, `weights.safetensors` | to go on from, and to build on |
| `log.jsonl`, `events.out.tfevents.*` | curves |
| `sheet_NNNNNN.png` | samples after that many steps |
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image

from engine.errors import ConfigError, DataError
from engine.loaders.run_card import WEIGHTS, read_card
from engine.outputs import own_folder
from engine.training.checkpoints import CHECKPOINT
from engine.training.loop import LoopSettings, Trainer, Values, is_due, run_loop
from engine.training.portraittalk.stage_config import StageSettings

SETTINGS = "settings.json"
MAY_CHANGE = frozenset({"steps", "save_every", "sample_every", "sample_steps", "samples"})


class RunTrainer(Trainer, Protocol):
    """A trainer whose progress can be measured and looked at."""

    accelerator: Accelerator

    def load(self, path: Path) -> None:
        """Go on where `path` was saved."""

    def held_out(self) -> Values:
        """`held_out`, a loss on fixed samples to compare runs by, and what else is worth a curve."""

    def samples(self) -> NDArray[np.uint8]:
        """A sheet of samples to look at (H, W, 3)."""


class Curves:
    """Reports a run into its folder; only the main process writes.

    Args:
        begun: whether the folder already holds the curves of the earlier steps.
    """

    def __init__(
        self, trainer: RunTrainer, folder: Path, settings: StageSettings, *, begun: bool
    ) -> None:
        self._trainer, self._folder, self._settings = trainer, folder, settings
        self._writer = (
            _writer(folder, trainer.step) if trainer.accelerator.is_main_process else None
        )
        self.values: Values = trainer.held_out()
        if self._writer is not None and not begun:
            for name, value in self.values.items():
                self._writer.add_scalar(name, value, 0)
            self._note(0)

    def __call__(self, step: int, values: Values) -> Values:
        """Take a step's values in; what the bar says."""
        self.values |= values
        if is_due(step, self._settings.sample_every, self._settings.steps):
            self.values |= self._trainer.held_out()
            if self._writer is not None:
                sheet = self._trainer.samples()
                Image.fromarray(sheet).save(self._folder / f"sheet_{step:06d}.png")
                self._writer.add_image("samples", sheet, step, dataformats="HWC")
                self._note(step)
        if self._writer is not None:
            for name, value in self.values.items():
                self._writer.add_scalar(name, value, step)
        return {name: self.values[name] for name in ("loss", "held_out")}

    def close(self) -> None:
        """Write what is not yet on disk."""
        if self._writer is not None:
            self._writer.close()

    def _note(self, step: int) -> None:
        with (self._folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **self.values}) + "\n")


def train_into(
    folder: Path, trainer: RunTrainer, settings: StageSettings, name: str, *, quiet: bool = False
) -> Values:
    """Train until the last step, or go on with what `folder` holds; the last numbers.

    Raises:
        ConfigError: `folder` was begun with other settings.
        DataError: its settings or its checkpoint are damaged.
    """
    main = trainer.accelerator.is_main_process
    resumed = _same_settings(folder, settings, write=main)
    if resumed:
        trainer.load(folder)
        if (folder / WEIGHTS).is_file() and read_card(folder / WEIGHTS) is None:
            trainer.save(folder)  # an earlier version wrote no card into it
    curves = Curves(trainer, folder, settings, begun=resumed)
    loop = LoopSettings(
        name=name, steps=settings.steps, save_every=settings.save_every, quiet=quiet or not main
    )
    try:
        run_loop(trainer, folder, loop, curves)
    finally:
        curves.close()
    return curves.values


def _same_settings(folder: Path, settings: StageSettings, *, write: bool) -> bool:
    """Whether there is a checkpoint to go on from; the settings it was made with must be these."""
    wanted = {k: v for k, v in asdict(settings).items() if k not in MAY_CHANGE}
    path = folder / SETTINGS
    resumed = (folder / CHECKPOINT).exists()
    if resumed:
        try:
            kept = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}; name another run folder") from error
        other = sorted(k for k in wanted.keys() | kept.keys() if wanted.get(k) != kept.get(k))
        if other:
            raise ConfigError(
                f"{folder} was begun with other settings ({', '.join(other)}); go on with the "
                "same ones, or name another run folder"
            )
    elif write:
        own_folder(folder, earlier=_settings_in(path, wanted.keys()))
        path.write_text(json.dumps(wanted, indent=1))
    return resumed


def _settings_in(path: Path, names: Iterable[str]) -> bool:
    """Whether a run without a checkpoint yet left its settings at `path`."""
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(kept, dict) and set() < kept.keys() <= set(names)


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)
