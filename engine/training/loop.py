"""The one training loop: steps up to the last one, a progress bar, checkpoints, a time limit.

What a step draws depends on the seed and on the number of the step alone, so a run that was
stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

Values = dict[str, float]
Report = Callable[[int, Values], Values]  # steps done, values of the last one -> what the bar says


class Trainer(Protocol):
    """What the loop needs of a trainer."""

    step: int  # steps done

    def train_step(self) -> Values:
        """One update; the parts of its loss, and whatever else is worth a curve."""

    def save(self, path: Path) -> None:
        """Write what a resumed run needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """How far a run goes and how often it is saved."""

    name: str  # beside the bar
    steps: int
    save_every: int
    minutes: float = math.inf  # stop after this long
    quiet: bool = False  # no bar


@dataclass(slots=True)
class Smoothed:
    """Running means of what the steps return: the report of a run that keeps no curves."""

    share: float = 0.02  # of the newest step
    means: Values = field(default_factory=dict)

    def __call__(self, step: int, values: Values) -> Values:
        """Take a step's values in."""
        self.means = {
            k: v + (1 - self.share) * (self.means.get(k, v) - v) for k, v in values.items()
        }
        return self.means


def run_loop(
    trainer: Trainer, path: Path, settings: LoopSettings, report: Report | None = None
) -> None:
    """Take the steps that are left, saving to `path` now and then and at the end.

    Args:
        report: called after every step, and after its checkpoint where one is due.
    """
    report = report or Smoothed()
    began = time.monotonic()
    with tqdm(
        initial=trainer.step,
        total=settings.steps,
        desc=settings.name,
        unit="step",
        disable=settings.quiet,
    ) as bar:
        over = False
        while trainer.step < settings.steps and not over:
            values = trainer.train_step()
            over = time.monotonic() - began > settings.minutes * 60
            if over or is_due(trainer.step, settings.save_every, settings.steps):
                trainer.save(path)
            shown = report(trainer.step, values)
            bar.update()
            bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items()}, refresh=False)


def is_due(step: int, every: int, last: int) -> bool:
    """Whether what happens every `every` steps, and at the last one, happens after this one."""
    return step % every == 0 or step == last


def rate_share(step: int, steps: int, *, warm_up: float, floor: float) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then a cosine down to `floor`.

    Args:
        warm_up: steps until the peak.
        floor: what is left at the last step; 1 keeps the rate flat.
    """
    fall = 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    return min(1.0, (step + 1) / max(warm_up, 1.0)) * (floor + (1 - floor) * fall)


def set_rates(optimiser: Any, peaks: list[float], share: float) -> None:
    """Set the learning rate of each parameter group to `share` of its peak."""
    for group, peak in zip(optimiser.param_groups, peaks, strict=True):
        group["lr"] = peak * share
