"""The card that a stage writes beside its weights: all that rebuilding it needs."""

from __future__ import annotations

from collections.abc import Iterable

from engine.diffusion.samplers import make_scheduler, set_steps
from engine.loaders.run_card import FaceSpace, RunCard, RunSampling, Stage
from engine.training.portraittalk.stage_config import DistillSettings, StageSettings
from engine.training.portraittalk.system import TalkingSystem, sampling


def run_card(
    system: TalkingSystem, stage: Stage, settings: StageSettings, step: int, trained: Iterable[str]
) -> RunCard:
    """The card of a stage after `step` steps.

    Args:
        trained: names of the weights that it saves; earlier stages are needed for what else they
            hold.
    """
    own, origin, config = frozenset(trained), system.origin, system.model.config
    face = FaceSpace(name=origin.face_encoder, width=config.embedding_width)
    return RunCard(
        stage=stage,
        step=step,
        after={e.name: e.step for e in origin.earlier if e.holds - own},
        start=origin.start,
        networks=config,
        latents=system.settings.latents,
        face=face if config.face_encoder else None,
        sampling=_sampling(settings),
    )


def _sampling(settings: StageSettings) -> RunSampling:
    how = sampling(
        settings.student_steps if isinstance(settings, DistillSettings) else settings.sample_steps
    )
    times = set_steps(make_scheduler(how.sampler, trailing=how.trailing), how.num_inference_steps)
    dropped = settings.text_dropout + settings.identity_dropout + settings.both_dropout
    return RunSampling(
        sampler=how.sampler,
        trailing=how.trailing,
        num_inference_steps=how.num_inference_steps,
        times=tuple(int(t) for t in times),
        guidance_scale=how.guidance_scale,
        guidable=dropped > 0 and not isinstance(settings, DistillSettings),
    )
