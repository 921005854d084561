"""A network that learns one loss: rate, gradient, running mean and checkpoint of every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import DataError
from engine.training.checkpoints import RunningMean, read_checkpoint, write_checkpoint
from engine.training.loop import rate_share, set_rates

# Number of the step -> the loss to lower, and the parts of it to show.
Loss = Callable[[int], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a checkpoint calls its parts."""

    net: str
    mean: str
    optimiser: str = "optimiser"
    prefix: str = ""  # before the names of the running means


@dataclass(frozen=True, slots=True, kw_only=True)
class NetPlan:
    """How a network is trained. Peak rates are those that its optimiser is made with."""

    steps: int
    warm_up: float  # steps
    floor: float  # of the rate at the last step
    ema: float
    ema_warm_up: int = 1
    clip: float = 1.0  # norm of the gradient
    keys: Keys


class NetTrainer:
    """One run of a network, from its checkpoint where there is one.

    Args:
        loss: computes the loss of a step with `net`; what it draws depends on the step alone.
        path: the checkpoint file.

    Raises:
        DataError: the checkpoint is damaged or of another network.
    """

    def __init__(
        self,
        net: nn.Module,
        optimiser: torch.optim.Optimizer,
        loss: Loss,
        plan: NetPlan,
        path: Path,
    ) -> None:
        self.net, self.optimiser, self.plan, self.step = net, optimiser, plan, 0
        self._loss = loss
        self._peaks = [float(group["lr"]) for group in optimiser.param_groups]
        floating = {n: t for n, t in net.state_dict().items() if t.is_floating_point()}
        self.mean = RunningMean(floating, plan.ema, plan.ema_warm_up)
        if path.exists():
            self.load(path)

    def train_step(self) -> dict[str, float]:
        """One update of the weights; the parts of the loss."""
        plan = self.plan
        share = rate_share(self.step, plan.steps, warm_up=plan.warm_up, floor=plan.floor)
        set_rates(self.optimiser, self._peaks, share)
        total, parts = self._loss(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), plan.clip)
        self.optimiser.step()
        self.mean.update(self.step)
        self.step += 1
        return {name: float(part.detach()) for name, part in parts.items()}

    def averaged(self) -> dict[str, Tensor]:
        """The running means as a `state_dict`; what has none, such as a counter, as it stands."""
        return self.net.state_dict() | self.mean.kept

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        keys = self.plan.keys
        mean = {keys.prefix + name: tensor for name, tensor in self.averaged().items()}
        state: dict[str, Any] = {
            keys.net: self.net.state_dict(),
            keys.mean: mean,
            keys.optimiser: self.optimiser.state_dict(),
            "step": self.step,
        }
        write_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Go on where `path` was saved.

        Raises:
            DataError: it is damaged, or of another network.
        """
        state, keys = read_checkpoint(path), self.plan.keys
        try:
            self.net.load_state_dict(state[keys.net])
            self.mean.restore({n: state[keys.mean][keys.prefix + n] for n in self.mean.kept})
            self.optimiser.load_state_dict(state[keys.optimiser])
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise DataError(f"{path} is the checkpoint of another network: {error}") from error
