"""The commands `train` and `distill`: a configuration in, a trained stage out."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator, DistributedDataParallelKwargs

from engine.config import WEIGHTS as BUNDLED
from engine.errors import ConfigError, DataError
from engine.loaders.registry import one_file
from engine.loaders.run_card import WEIGHTS, read_card
from engine.motion.retarget import FaceBasis
from engine.training.data.clips import Clip, load_clips
from engine.training.portraittalk.begin import as_prepared, build_system
from engine.training.portraittalk.dataset import SampleSettings, TalkData
from engine.training.portraittalk.distill import DistillTrainer
from engine.training.portraittalk.patch_judge import likeness
from engine.training.portraittalk.run_folder import train_into
from engine.training.portraittalk.stage_config import (
    STAGES,
    DistillSettings,
    RunConfig,
    StageSettings,
    load_run_config,
)
from engine.training.portraittalk.stage_trainer import StageTrainer
from engine.training.portraittalk.stages import frames_of


def train(config: Path, stage: str, *, cpu: bool = False, quiet: bool = False) -> dict[str, float]:
    """Run one stage of a configuration file to its last step; the last numbers.

    Raises:
        ConfigError: unknown stage or setting, or the run folder was begun with others.
        DataError: no prepared clips, or damaged ones.
    """
    if stage not in STAGES:
        raise ConfigError(f"no stage {stage!r}; there are {', '.join(STAGES)}")
    run, chosen = load_run_config(config), STAGES[STAGES.index(stage)]
    settings = run.stage(chosen)
    accelerator = make_accelerator(settings, cpu=cpu)
    clips = load_clips(run.data.clips)
    system = build_system(run, stage, clips)
    masked = chosen == "identity"
    frames = frames_of(chosen, system.model.config)
    data, held_out = talk_data(run, clips, settings, frames, masked=masked)
    trainer = StageTrainer(system, chosen, settings, data, held_out, accelerator)
    return train_into(run.folder(stage), trainer, settings, stage, quiet=quiet)


def distill(
    config: Path, *, cache: Path | None = None, cpu: bool = False, quiet: bool = False
) -> dict[str, float]:
    """Run the distillation of a configuration file to its last step; the last numbers.

    Args:
        cache: folder of fetched tools, for LPIPS.

    Raises:
        ConfigError: an unknown setting, or the run folder was begun with others.
        DataError: no prepared clips, or no trained stage to distil.
    """
    run = load_run_config(config)
    settings = run.distill()
    perceptual = likeness(settings.perceptual, cache)
    if not (run.folder("joint") / WEIGHTS).exists():
        raise DataError(
            f"nothing to distil in {run.run}: run `portraittalk train joint --config {config}` first"
        )
    _check_teacher(run.folder("joint") / WEIGHTS, settings)
    few_step = one_file(settings.begin_with, run.models) if settings.begin_with else None
    accelerator = make_accelerator(settings, cpu=cpu)
    clips = load_clips(run.data.clips)
    system = build_system(run, "distill", clips)
    data, held_out = talk_data(run, clips, settings, settings.frames, masked=False)
    trainer = DistillTrainer(system, settings, data, held_out, accelerator, perceptual, few_step)
    return train_into(run.folder("distill"), trainer, settings, "distill", quiet=quiet)


def _check_teacher(weights: Path, settings: DistillSettings) -> None:
    """Refuse to guide a teacher that never learnt to do without words and identity."""
    card = read_card(weights)
    if settings.distribution_matching == 0 or settings.teacher_guidance in (0, 1):
        return
    if card is not None and not card.sampling.guidable:
        raise ConfigError(
            f"teacher_guidance={settings.teacher_guidance:g}: {weights.parent} was trained without "
            "ever leaving words and identity out, so there is nothing to guide from; use 1, or train "
            "it with text_dropout, identity_dropout and both_dropout"
        )


def make_accelerator(settings: StageSettings, *, cpu: bool) -> Accelerator:
    """Where the work is done. A cold start leaves the temporal attention unused, which a wrapper
    over several GPUs must be told to expect.
    """
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=cpu, mixed_precision=settings.precision, kwargs_handlers=[unused])


def talk_data(
    run: RunConfig,
    clips: list[Clip],
    settings: StageSettings | DistillSettings,
    frames: int,
    *,
    masked: bool,
) -> tuple[TalkData, TalkData]:
    """Samples of the training people, and of those held out (the same where nobody is)."""
    depth = FaceBasis.load(BUNDLED / "tiny" / "basis.npz").depth
    train_clips = [c for c in clips if c.card.split == "train"]
    test_clips = [c for c in clips if c.card.split == "test"]
    if not train_clips:
        raise DataError(f"{run.data.clips} holds no clip of split train")

    sample = SampleSettings(
        frames=frames,
        masked=settings.masked if masked else 0.0,
        hole_share=settings.holes,
        embedding=as_prepared(run.model, clips)[0].config().embedding_width,
        scale=run.model.output_scale,
        speech=run.model.speech_features if run.model.conditioning == "difftalk" else 0,
    )

    def data(chosen: list[Clip]) -> TalkData:
        return TalkData(chosen, run.data, depth, sample)

    return data(train_clips), data(test_clips or train_clips)
