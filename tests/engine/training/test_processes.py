"""Training on two processes, as on two GPUs, here over loopback on a CPU.

`accelerate launch --cpu` would start one process whatever it is told, so torch's own launcher it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from engine.training.checkpoints import CHECKPOINT  # noqa: E402
from engine.training.data.drawn_clips import write_drawn_clips  # noqa: E402

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.train, pytest.mark.slow, pytest.mark.timeout(600)]


def config_file(folder: Path, name: str, steps: int) -> Path:
    """A small run of `steps` steps in `folder`/`name`."""
    tables = {
        "data": {"clips": str(folder / "drawn"), "size": 64, "reference_gap": 1},
        "model": {"size": "small", "latents": "tiny"},
        "train": {"steps": steps, "batch": 2, "rate": 2e-3, "warm_up": 2, "samples": 2}
        | {"sample_steps": 2, "save_every": 100, "sample_every": 100},
    }
    lines = [f'run = "{name}"']
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines))
    return path


def launch(config: Path, processes: int) -> None:
    """`portraittalk train identity` on several processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), "-m", "server.cli", "train", "identity"]
    alone = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--config", str(config), "--cpu"],
        env=alone,
        cwd=config.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held-out loss") == 1, "only one of them speaks"


def weights(config: Path) -> dict[str, torch.Tensor]:
    path = config.parent / config.stem / "identity" / CHECKPOINT
    state = torch.load(path, weights_only=True)
    assert state["step"] == 2
    return dict(state["weights"])


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_two_processes_share_a_batch_and_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    write_drawn_clips(tmp_path / "drawn", people=8, frames=4, size=64)
    whole, broken = config_file(tmp_path, "whole", 2), config_file(tmp_path, "broken", 1)
    launch(whole, 2)
    launch(broken, 2)
    launch(config_file(tmp_path, "broken", 2), 2)
    assert apart(weights(whole), weights(broken)) <= 1e-6

    one = config_file(tmp_path, "one", 2)
    launch(one, 1)
    assert apart(weights(whole), weights(one)) > 1e-5, "the second process brings its own samples"
