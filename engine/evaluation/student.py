"""How near a few-step student comes to its teacher: `python -m engine.evaluation.student --config C`.

Roll-outs over the same clips, noise and frame cache: the teacher's many steps, the student's few, and the
teacher in as few. Compared with the filmed frames by a perceptual distance and by L1 of the mouth. A
student is one when it is hardly worse than its teacher and far better than the teacher in its steps.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from engine.errors import DataError
from engine.loaders.run_card import WEIGHTS
from engine.loaders.trained import load_stages
from engine.training.data.clips import load_clips
from engine.training.mouth_crop import mouth_crop
from engine.training.portraittalk.begin import build_system
from engine.training.portraittalk.dataset import TalkBatch
from engine.training.portraittalk.patch_judge import Likeness, likeness
from engine.training.portraittalk.roll_out import fixed_roll_out
from engine.training.portraittalk.run_stage import talk_data
from engine.training.portraittalk.stage_config import RunConfig, load_run_config
from engine.training.portraittalk.system import TalkingSystem

MOUTH = 32  # pixels a side, at least
WORSE = 1.05  # times the teacher's error that a student may have
BETTER = 0.75  # times the error of the teacher in as few steps that it must stay below


@dataclass(frozen=True, slots=True)
class Errors:
    """Means over frames and samples."""

    perceptual: float
    mouth: float


def compare(
    config: RunConfig, *, steps: int, teacher_steps: int, perceptual: nn.Module
) -> dict[str, Errors]:
    """Errors of `teacher` (many steps), `student` and `teacher_few` (both `steps`).

    Args:
        perceptual: images (B, 3, H, W) in [-1, 1] twice -> distances (B,).

    Raises:
        DataError: nothing was distilled yet, or there are no clips.
    """
    if not (config.folder("distill") / WEIGHTS).is_file():
        raise DataError(f"no student in {config.run}: run `portraittalk distill` first")
    clips, settings = load_clips(config.data.clips), config.distill()
    system = build_system(config, "distill", clips).eval()
    _, held_out = talk_data(config, clips, settings, settings.frames, masked=False)
    batch = held_out.fixed(settings.samples)
    made = {
        "teacher": _errors(system, batch, teacher_steps, perceptual),
        "teacher_few": _errors(system, batch, steps, perceptual),
    }
    load_stages(system.model, system.origin.start, [config.folder("distill")])
    return made | {"student": _errors(system, batch, steps, perceptual)}


@torch.no_grad()
def _errors(system: TalkingSystem, batch: TalkBatch, steps: int, perceptual: nn.Module) -> Errors:
    far: list[Tensor] = []
    mouths: list[Tensor] = []
    for frame, shown in enumerate(fixed_roll_out(system, batch, steps)):
        real, points = batch.frames[:, frame], batch.landmarks[:, frame]
        side = max(MOUTH, real.shape[-1] // 4)
        far.append(perceptual(shown, real).mean())
        mouths.append(F.l1_loss(mouth_crop(shown, points, side), mouth_crop(real, points, side)))
    return Errors(float(torch.stack(far).mean()), float(torch.stack(mouths).mean()))


def verdict(errors: dict[str, Errors]) -> dict[str, float | bool]:
    """Ratios of the student's errors, and whether they make it a student."""
    student, teacher, few = (errors[name] for name in ("student", "teacher", "teacher_few"))
    said: dict[str, float | bool] = {}
    for name in ("perceptual", "mouth"):
        own = getattr(student, name)
        said[f"{name}_to_teacher"] = own / getattr(teacher, name)
        said[f"{name}_to_teacher_few"] = own / getattr(few, name)
    near = all(said[f"{name}_to_teacher"] <= WORSE for name in ("perceptual", "mouth"))
    better = all(said[f"{name}_to_teacher_few"] <= BETTER for name in ("perceptual", "mouth"))
    return said | {"is_a_student": near and better}


def main() -> None:
    """Print the errors and one line of JSON."""
    parser = argparse.ArgumentParser(description="Compare a few-step student with its teacher.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--teacher-steps", type=int, default=25)
    parser.add_argument("--cache", type=Path, help="folder of fetched tools: LPIPS is kept there")
    args = parser.parse_args()
    kind: Likeness = "random" if args.cache is None else "lpips"
    distance = likeness(kind, args.cache)
    assert distance is not None, "both kinds measure"
    errors = compare(
        load_run_config(args.config),
        steps=args.steps,
        teacher_steps=args.teacher_steps,
        perceptual=distance,
    )
    for name, error in errors.items():
        typer.echo(f"{name:12} perceptual {error.perceptual:.4f}  mouth L1 {error.mouth:.4f}")
    typer.echo(json.dumps({"likeness": kind, **verdict(errors)}))


if __name__ == "__main__":
    main()
