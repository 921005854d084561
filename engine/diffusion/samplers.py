"""Samplers over diffusers' schedulers, and a long video by the frame cache.

A model is a function (z_t, t) -> prediction. Guidance and the frame cache make such a function out of
others, so every sampler works with each of them; `engine.diffusion.latent_fusion` is the other way to a
long video.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)
from numpy.typing import NDArray
from torch import Tensor

from engine.diffusion.flow import sampling_times
from engine.errors import ConfigError

Sampler = Literal["ddim", "euler", "dpm++", "lcm", "tcd", "flow"]
Model = Callable[[Tensor, Tensor], Tensor]  # z_t (B, C, h, w), t (B,) -> prediction like z_t
CachedModel = Callable[[Tensor, Tensor, int, Any], tuple[Tensor, Any]]

SAMPLERS: tuple[str, ...] = get_args(Sampler)
FEW_STEPS = ("lcm", "tcd")  # for weights distilled to few steps
# The noise schedule that Stable Diffusion 1.5 was trained on.
_SD15: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
_CLASSES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "ddim": (
        DDIMScheduler,
        {**_SD15, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    ),
    "euler": (EulerDiscreteScheduler, {**_SD15, "steps_offset": 1}),
    "dpm++": (DPMSolverMultistepScheduler, {**_SD15, "steps_offset": 1}),
    "lcm": (LCMScheduler, {**_SD15, "clip_sample": False, "set_alpha_to_one": False}),
    "tcd": (TCDScheduler, {**_SD15, "clip_sample": False, "set_alpha_to_one": False}),
    "flow": (FlowMatchEulerDiscreteScheduler, {"num_train_timesteps": 1000}),
}


def make_scheduler(name: str, *, trailing: bool = False) -> Any:
    """Make the scheduler of a sampler.

    Args:
        trailing: space DDIM's steps from the last one back, as Hyper-SD's weights want it.

    Raises:
        ConfigError: no such sampler.
    """
    if name not in _CLASSES:
        raise ConfigError(f"sampler={name!r} is unknown; one of {', '.join(SAMPLERS)}")
    kind, settings = _CLASSES[name]
    spacing = {"timestep_spacing": "trailing"} if trailing and name == "ddim" else {}
    return kind(**settings, **spacing)


def set_steps(scheduler: Any, steps: int) -> Tensor:
    """Choose the times of `steps` steps and return them (steps,)."""
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    if flow:
        scheduler.set_timesteps(sigmas=sampling_times(steps)[:-1])
    else:
        with warnings.catch_warnings():  # it hands tensors to numpy in a way that numpy 2 minds
            warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
            scheduler.set_timesteps(steps)
    times: Tensor = scheduler.timesteps
    return times


def guided(conditional: Model, unconditional: Model, guidance: float) -> Model:
    """Classifier-free guidance (arXiv 2207.12598); at 1 the unconditional one is never asked."""
    if guidance == 1.0:
        return conditional

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        without = unconditional(z_t, t)
        return without + guidance * (conditional(z_t, t) - without)

    return predict


class Denoising:
    """One run of a sampler, a step at a time, which can be stopped and gone on with.

    Args:
        noise: (B, C, h, w), drawn from a standard normal.
        generator: of the noise that "lcm" and "tcd" add between steps.
        trailing: see `make_scheduler`.

    Attributes:
        z_t: latents after the steps done; clean ones at the end.
        step: steps done, of `steps`.
    """

    def __init__(
        self,
        noise: Tensor,
        sampler: str = "ddim",
        steps: int = 30,
        *,
        generator: torch.Generator | None = None,
        trailing: bool = False,
    ) -> None:
        self.step, self.steps = 0, steps
        self._scheduler = make_scheduler(sampler, trailing=trailing)
        self._times = set_steps(self._scheduler, steps)
        self._again = {"generator": generator} if sampler in FEW_STEPS else {}
        self.z_t = noise * getattr(self._scheduler, "init_noise_sigma", 1.0)

    def ask(self) -> tuple[Tensor, Tensor]:
        """What the model is to be asked at this step: latents (B, C, h, w), times (B,)."""
        t, z_t = self._times[self.step], self.z_t
        if hasattr(self._scheduler, "scale_model_input"):
            z_t = self._scheduler.scale_model_input(z_t, t)
        return z_t, t.to(z_t.device).expand(len(z_t))

    def advance(self, prediction: Tensor) -> None:
        """Take one step with what the model said."""
        self.z_t = self._scheduler.step(
            prediction, self._times[self.step], self.z_t, return_dict=False, **self._again
        )[0]
        self.step += 1

    def pack(self) -> dict[str, NDArray[Any]]:
        """The run as arrays, from which `unpack` goes on to the same latents."""
        kept = {"step": np.array(self.step), "z_t": self.z_t.cpu().numpy()}
        if generator := self._again.get("generator"):
            kept["generator"] = generator.get_state().numpy()
        for i, output in enumerate(getattr(self._scheduler, "model_outputs", ())):
            if output is not None:  # what "dpm++" remembers of earlier steps
                kept[f"output{i}"] = output.cpu().numpy()
        return kept

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """Go on where a run of the same settings was packed."""
        device = self.z_t.device
        self.step = int(kept["step"])
        self.z_t = torch.from_numpy(np.array(kept["z_t"])).to(device)
        if generator := self._again.get("generator"):
            generator.set_state(torch.from_numpy(np.array(kept["generator"])))
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(self.step)
        outputs = [name for name in kept if name.startswith("output")]
        for name in outputs:
            output = torch.from_numpy(np.array(kept[name])).to(device)
            self._scheduler.model_outputs[int(name.removeprefix("output"))] = output
        if outputs:
            self._scheduler.lower_order_nums = len(outputs)


def sample(
    model: Model,
    noise: Tensor,
    sampler: str = "ddim",
    steps: int = 30,
    *,
    unconditional: Model | None = None,
    guidance: float = 1.0,
    generator: torch.Generator | None = None,
    trailing: bool = False,
    progress: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Denoise `noise` (B, C, h, w), drawn from a standard normal; returns clean latents.

    Args:
        model: predicts the noise; for "flow" the velocity `noise - clean`.
        unconditional: the model without its conditions, for `guidance` other than 1.
        generator: of the noise that "lcm" and "tcd" add between steps.
        progress: called with the number of steps done.
    """
    if unconditional is not None:
        model = guided(model, unconditional, guidance)
    run = Denoising(noise, sampler, steps, generator=generator, trailing=trailing)
    while run.step < steps:
        run.advance(model(*run.ask()))
        progress(run.step)
    return run.z_t


def sample_frames(
    model: CachedModel,
    noise: Tensor,
    cache: Any,
    sampler: str = "ddim",
    steps: int = 30,
    *,
    unconditional: CachedModel | None = None,
    guidance: float = 1.0,
    generator: torch.Generator | None = None,
    first: int = 0,
) -> Iterator[tuple[Tensor, Any]]:
    """Sample frame after frame, each seeing the cache that the last step of the one before left.

    Args:
        model: (z_t, t, frame, cache of the frame before) -> (prediction, this evaluation's cache).
        noise: (F, C, h, w), one row a frame.
        cache: what the first frame sees.
        first: index of the first frame.

    Yields:
        latents (1, C, h, w) and the cache of each frame.
    """
    for row in range(len(noise)):
        before, kept = cache, [cache]

        def predict(z_t: Tensor, t: Tensor, at: int = first + row, seen: Any = before) -> Tensor:
            out, kept[0] = model(z_t, t, at, seen)  # noqa: B023 - used up before the next round
            return out

        plain: Model | None = None
        if unconditional is not None:
            without = unconditional

            def plain(z_t: Tensor, t: Tensor, at: int = first + row, seen: Any = before) -> Tensor:
                return without(z_t, t, at, seen)[0]  # noqa: B023

        clean = sample(
            *(predict, noise[row : row + 1], sampler, steps),
            unconditional=plain,
            guidance=guidance,
            generator=generator,
        )
        cache = kept[0]
        yield clean, cache
