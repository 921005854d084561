"""Small runs of the stages, over clips of drawn people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.config import WEIGHTS as BUNDLED
from engine.loaders.run_card import WEIGHTS
from engine.motion.retarget import FaceBasis
from engine.training.checkpoints import CHECKPOINT
from engine.training.data.clips import load_clips
from engine.training.portraittalk.begin import begin
from engine.training.portraittalk.dataset import SampleSettings, TalkData
from engine.training.portraittalk.run_stage import distill, train
from engine.training.portraittalk.stage_config import (
    DataSettings,
    ModelSettings,
    StageSettings,
    load_run_config,
)
from engine.training.portraittalk.stages import trained_names
from engine.training.portraittalk.system import TalkingSystem

DEPTH = FaceBasis.load(BUNDLED / "tiny" / "basis.npz").depth
SIDE = 64


def config_file(folder: Path, clips: Path, name: str = "run", **tables: dict[str, Any]) -> Path:
    """A TOML file of a small run; `train` for all stages and any table more."""
    base: dict[str, dict[str, Any]] = {
        "data": {"clips": str(clips), "size": SIDE, "reference_gap": 1},
        "model": {"size": "small", "latents": "tiny"},
        "train": {"steps": 2, "batch": 1, "rate": 2e-3, "warm_up": 2, "ema": 0.9, "sample_steps": 1}
        | {"save_every": 100, "sample_every": 100, "samples": 1},
        "distill": {"frames": 2, "student_steps": 2, "perceptual": "random", "adversarial_from": 0},
    }
    merged = base | {k: base.get(k, {}) | v for k, v in tables.items()}
    lines = [f'run = "{name}"']
    for table, values in merged.items():
        lines += [f"[{table}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines))
    return path


def run(path: Path, stage: str) -> dict[str, float]:
    if stage == "distill":
        return distill(path, cpu=True, quiet=True)
    return train(path, stage, cpu=True, quiet=True)


def weights_of(path: Path, stage: str) -> dict[str, torch.Tensor]:
    folder = path.parent / path.stem / stage
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    return {f"{part}.{n}": t for part in ("weights", "mean") for n, t in state[part].items()}


def pretend_trained(path: Path, stage: str, change: float = 0.0) -> None:
    """Let the next stage find a trained one: the random start, with `change` added to its UNet."""
    config = load_run_config(path)
    clips = load_clips(config.data.clips)
    model = begin(config.model, config.data.size, config.models, clips).model
    folder = config.folder(stage)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: p.detach() + change for n, p in model.named_parameters() if n.startswith("unet.")}
    save_file(weights, folder / WEIGHTS)


def first_held_out(path: Path, stage: str) -> float:
    """The held-out loss that a run began with."""
    log = (path.parent / path.stem / stage / "log.jsonl").read_text().splitlines()
    return float(json.loads(log[0])["held_out"])


def system(**switches: Any) -> TalkingSystem:
    settings = ModelSettings(size="small", latents="tiny", **switches)
    return begin(settings, SIDE, Path("models"), [])


def names(stage: Any, weights: Any = "all", **switches: Any) -> set[str]:
    made = system(**switches)
    return set(trained_names(made.model, stage, StageSettings(weights=weights)))


def data(drawn: Path, frames: int = 2, references: int = 1, **more: Any) -> TalkData:
    settings = DataSettings(clips=drawn, size=SIDE, reference_gap=1, references=references)
    return TalkData(load_clips(drawn), settings, DEPTH, SampleSettings(frames=frames, **more))
