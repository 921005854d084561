"""The loop that every trainer shares, and the trainer of a single network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from engine.errors import DataError  # noqa: E402
from engine.training.checkpoints import RunningMean, read_checkpoint  # noqa: E402
from engine.training.loop import (  # noqa: E402
    LoopSettings,
    Smoothed,
    rate_share,
    run_loop,
)
from engine.training.net_trainer import Keys, NetPlan, NetTrainer  # noqa: E402

pytestmark = pytest.mark.train


class Counter:
    """Counts its steps, and notes at which it was saved."""

    def __init__(self, step: int = 0) -> None:
        self.step, self.saved = step, list[int]()

    def train_step(self) -> dict[str, float]:
        self.step += 1
        return {"loss": 1 / self.step}

    def save(self, path: Path) -> None:
        self.saved.append(self.step)


def settings(steps: int, **more: float) -> LoopSettings:
    return LoopSettings(name="test", steps=steps, save_every=3, quiet=True, **more)  # type: ignore[arg-type]


def test_a_run_is_saved_now_and_then_and_at_its_end(tmp_path: Path) -> None:
    trainer, seen = Counter(step=2), []

    def report(step: int, values: dict[str, float]) -> dict[str, float]:
        seen.append((step, values["loss"], list(trainer.saved)))
        return values

    run_loop(trainer, tmp_path, settings(8), report)
    assert trainer.saved == [3, 6, 8]
    assert [step for step, _, _ in seen] == [3, 4, 5, 6, 7, 8]
    assert seen[0] == (3, 1 / 3, [3]), "a step is reported after its checkpoint"
    run_loop(trainer, tmp_path, settings(8), report)
    assert trainer.step == 8, "a finished run has nothing left to do"


def test_a_run_whose_time_is_up_is_saved_where_it_stands(tmp_path: Path) -> None:
    trainer = Counter()
    run_loop(trainer, tmp_path, settings(100, minutes=0))
    assert (trainer.step, trainer.saved) == (1, [1])


def test_values_are_shown_as_their_running_means() -> None:
    smooth = Smoothed(share=0.25)
    assert smooth(1, {"a": 4.0}) == {"a": 4.0}
    assert smooth(2, {"a": 0.0, "b": 1.0}) == {"a": 3.0, "b": 1.0}


def test_the_rate_rises_to_its_peak_then_falls_to_its_floor() -> None:
    rates = [rate_share(i, 1000, warm_up=50, floor=0.02) for i in range(1001)]
    assert rates[0] == pytest.approx(0.02)
    assert np.argmax(rates) == 49
    assert max(rates) > 0.99
    assert (np.diff(rates[50:]) <= 0).all()
    assert rates[-1] == pytest.approx(0.02)
    flat = [rate_share(i, 10, warm_up=4, floor=1) for i in range(10)]
    assert flat == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]


def test_a_running_mean_trails_and_changes_places_with_what_it_averages() -> None:
    live = nn.Parameter(torch.zeros(2))
    mean = RunningMean({"w": live}, decay=0.5, warm_up=1)
    live.data.fill_(1.0)
    mean.update(0)
    mean.update(1)
    assert mean.kept["w"].tolist() == [0.75, 0.75]
    mean.swap()
    assert live.tolist() == [0.75, 0.75]
    mean.swap()
    assert live.tolist() == [1.0, 1.0]


class Line(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.register_buffer("count", torch.tensor([5, 477]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).sum()


KEYS = Keys(net="raw", mean="model", prefix="m.")


def trainer_of(path: Path, width: int = 3) -> NetTrainer:
    net = Line(width)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        x = torch.from_numpy(np.random.default_rng(step).standard_normal(width).astype("f"))
        square = (net(x) - 1) ** 2
        return 2 * square, {"square": square}

    plan = NetPlan(steps=12, warm_up=3, floor=0.1, ema=0.9, keys=KEYS)
    return NetTrainer(net, torch.optim.AdamW(net.parameters(), 0.1), loss, plan, path)


def test_a_network_stopped_and_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    whole, path = trainer_of(tmp_path / "none.pt"), tmp_path / "a.pt"
    run_loop(whole, tmp_path / "whole.pt", settings(12))
    run_loop(trainer_of(path), path, settings(5))
    again = trainer_of(path)
    assert again.step == 5
    run_loop(again, path, settings(12))
    for a, b in (
        (whole.net.state_dict(), again.net.state_dict()),
        (whole.averaged(), again.averaged()),
    ):
        assert a.keys() == b.keys()
        for name, tensor in a.items():
            assert torch.equal(tensor, b[name]), name
    assert not torch.equal(again.averaged()["weight"], again.net.state_dict()["weight"])


def test_a_checkpoint_has_the_keys_it_is_told_and_whole_numbers_are_not_averaged(
    tmp_path: Path,
) -> None:
    trainer, path = trainer_of(tmp_path / "a.pt"), tmp_path / "a.pt"
    trainer.train_step()
    trainer.save(path)
    state = read_checkpoint(path)
    assert state.keys() == {"raw", "model", "optimiser", "step"}
    assert state["model"].keys() == {"m.weight", "m.count"}
    assert state["model"]["m.count"].tolist() == [5, 477]
    assert not path.with_name("a.pt.part").exists()


def test_a_checkpoint_of_another_network_or_half_of_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    trainer_of(path).save(path)
    with pytest.raises(DataError, match="another network"):
        trainer_of(path, width=4)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        trainer_of(path)
