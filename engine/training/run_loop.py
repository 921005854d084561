"""Runs a trainer to its last step: progress bar, curves, pictures, checkpoints, and going on."""

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
from tqdm import tqdm

from engine.errors import ConfigError, DataError
from engine.outputs import own_folder
from engine.training.portraittalk.stage_config import StageSettings

SETTINGS = "settings.json"
MAY_CHANGE = frozenset({"steps", "save_every", "sample_every", "sample_steps", "samples"})


class Trainer(Protocol):
    """What the loop needs of a trainer."""

    settings: Any
    step: int
    accelerator: Accelerator

    def train_step(self) -> dict[str, float]:
        """One update."""

    def save(self, folder: Path) -> None:
        """Write what a resumed run needs."""

    def load(self, folder: Path) -> None:
        """Go on where `folder` was saved."""

    def held_out_loss(self) -> float:
        """A loss on fixed samples, to compare runs by."""

    def pictures(self) -> NDArray[np.uint8]:
        """A sheet to look at (H, W, 3)."""


def run_loop(trainer: Trainer, folder: Path, name: str, *, quiet: bool = False) -> dict[str, float]:
    """Train until the last step, or go on with what `folder` holds; the last numbers.

    Raises:
        ConfigError: `folder` was begun with other settings.
    """
    s: StageSettings = trainer.settings
    main = trainer.accelerator.is_main_process
    resumed = _same_settings(folder, s, write=main)
    if resumed:
        trainer.load(folder)
    curves = _curves(folder, trainer.step) if main else None
    values = {"held_out": trainer.held_out_loss()}
    bar = tqdm(
        initial=trainer.step, total=s.steps, desc=name, unit="step", disable=quiet or not main
    )
    if curves is not None and not resumed:
        curves.add_scalar("held_out", values["held_out"], 0)
        _note(folder, {"step": 0, **values})
    while trainer.step < s.steps:
        values |= trainer.train_step()
        at = trainer.step
        bar.update()
        bar.set_postfix({k: f"{values[k]:.4g}" for k in ("loss", "held_out")})
        if at % s.sample_every == 0 or at == s.steps:
            values["held_out"] = trainer.held_out_loss()
            if curves is not None:
                sheet = trainer.pictures()
                Image.fromarray(sheet).save(folder / f"sheet_{at:06d}.png")
                curves.add_image("samples", sheet, at, dataformats="HWC")
                _note(folder, {"step": at, **values})
        if curves is not None:
            for key in values:
                curves.add_scalar(key, values[key], at)
        if at % s.save_every == 0 or at == s.steps:
            trainer.save(folder)
            trainer.accelerator.wait_for_everyone()
    bar.close()
    if curves is not None:
        curves.close()
    return values


def _same_settings(folder: Path, settings: StageSettings, *, write: bool) -> bool:
    """Whether there is a checkpoint to go on from; the settings it was made with must be these."""
    wanted = {k: v for k, v in asdict(settings).items() if k not in MAY_CHANGE}
    path = folder / SETTINGS
    resumed = (folder / "checkpoint.pt").exists()
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


def _curves(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)


def _note(folder: Path, values: dict[str, float]) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(values) + "\n")
