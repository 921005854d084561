"""Samplers over diffusers' schedulers.

A model is a function (z_t, t) -> prediction. Classifier-free guidance and the frame cache wrap such a
function in another, so every sampler works with each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

Generators = torch.Generator | list[torch.Generator] | None

SAMPLERS: tuple[str, ...] = get_args(Sampler)
UNGUIDED = (0.0, 1.0)
FEW_STEPS = ("lcm", "tcd")  # for weights distilled to few steps
SPACED = ("ddim", "euler", "dpm++")  # whose times can be counted from the last one back
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSettings:
    """How latents are sampled; the terms are those of diffusers.

    Args:
        sampler: one of `SAMPLERS`.
        guidance_scale: of classifier-free guidance; 1 or 0 for off.
        trailing: see `make_scheduler`.
    """

    sampler: str = "ddim"
    num_inference_steps: int = 30
    guidance_scale: float = 1.0
    trailing: bool = False


DEFAULT = SamplerSettings()


def make_scheduler(name: str, *, trailing: bool = False) -> Any:
    """Make the scheduler of a sampler.

    Args:
        trailing: times counted from the last one back (arXiv 2305.08891) where the sampler is `SPACED`,
            as training's sampler does and Hyper-SD's weights need it.

    Raises:
        ConfigError: no such sampler.
    """
    if name not in _CLASSES:
        raise ConfigError(f"sampler={name!r} is unknown; one of {', '.join(SAMPLERS)}")
    kind, settings = _CLASSES[name]
    spacing = {"timestep_spacing": "trailing"} if trailing and name in SPACED else {}
    return kind(**settings, **spacing)


def set_steps(scheduler: Any, num_inference_steps: int) -> Tensor:
    """Set the scheduler's timesteps and return them (num_inference_steps,)."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=sampling_times(num_inference_steps)[:-1])
    else:
        # diffusers makes a numpy array of it, which warns where it is a tensor.
        kept = scheduler.alphas_cumprod
        scheduler.alphas_cumprod = kept.numpy()
        scheduler.set_timesteps(num_inference_steps)
        scheduler.alphas_cumprod = kept
    times: Tensor = scheduler.timesteps
    return times


def guided(conditional: Model, unconditional: Model, guidance_scale: float) -> Model:
    """Classifier-free guidance (arXiv 2207.12598); at scales 1 and 0 the unconditional model is not run.

    0 stands for "no guidance" too, as few-step weights (Hyper-SD) document it.

    Both models take z_t (B, C, h, w) and t (B,), as the returned one does.
    """
    if guidance_scale in UNGUIDED:
        return conditional

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        without = unconditional(z_t, t)
        return without + guidance_scale * (conditional(z_t, t) - without)

    return predict


class Denoising:
    """One run of a sampler, a step at a time; it can be interrupted and resumed.

    Args:
        noise: (B, C, h, w), drawn from a standard normal.
        settings: `guidance_scale` is not used here; it is applied to the model by `guided`.
        generator: of the noise that "lcm" and "tcd" add between steps; one a row of `noise`, or one
            for all of them.
        clean: latents like `noise` to begin from in its place, with `noise` added as at the time begun at.
        strength: how much of the way is gone from them, above 0 to 1: that share of the steps, one at
            least, the last ones.

    Attributes:
        z_t: latents (B, C, h, w) after the steps done; clean ones at the end.
        step: steps done, of `steps`.

    Raises:
        ConfigError: no such sampler.
    """

    def __init__(
        self,
        noise: Tensor,
        settings: SamplerSettings = DEFAULT,
        *,
        generator: Generators = None,
        clean: Tensor | None = None,
        strength: float = 1.0,
    ) -> None:
        self.step, self.steps = 0, settings.num_inference_steps
        self._scheduler = make_scheduler(settings.sampler, trailing=settings.trailing)
        self._times = set_steps(self._scheduler, self.steps)
        self._again = {"generator": generator} if settings.sampler in FEW_STEPS else {}
        self.z_t = noise * getattr(self._scheduler, "init_noise_sigma", 1.0)
        if clean is not None:
            self.step = self.steps - max(1, round(strength * self.steps))
            self._go_to(self.step)
            begin = self._times[self.step : self.step + 1]
            self.z_t = self._scheduler.add_noise(clean, noise, begin)

    def ask(self) -> tuple[Tensor, Tensor]:
        """Inputs of the model at this step: latents (B, C, h, w), times (B,)."""
        t, z_t = self._times[self.step], self.z_t
        if hasattr(self._scheduler, "scale_model_input"):
            z_t = self._scheduler.scale_model_input(z_t, t)
        return z_t, t.to(z_t.device).expand(len(z_t))

    def advance(self, prediction: Tensor) -> None:
        """Take one step with the model's `prediction` (B, C, h, w) for the inputs `ask` returned."""
        self.z_t = self._scheduler.step(
            prediction, self._times[self.step], self.z_t, return_dict=False, **self._again
        )[0]
        self.step += 1

    def pack(self) -> dict[str, NDArray[Any]]:
        """The state as arrays: step (), z_t (B, C, h, w), and what the scheduler and generator keep."""
        kept = {"step": np.array(self.step), "z_t": self.z_t.cpu().numpy()}
        if generators := self._generators():
            kept["generator"] = np.stack([each.get_state().numpy() for each in generators])
        for i, output in enumerate(getattr(self._scheduler, "model_outputs", ())):
            if output is not None:  # "dpm++" keeps those of earlier steps
                kept[f"output{i}"] = output.cpu().numpy()
        return kept

    def _generators(self) -> list[torch.Generator]:
        given: Generators = self._again.get("generator")
        return [] if given is None else given if isinstance(given, list) else [given]

    def _go_to(self, step: int) -> None:
        """Tell the scheduler which step is next; some count for themselves."""
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(step)

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """Resume where a run of the same settings was packed; shapes as `pack` returns them."""
        device = self.z_t.device
        self.step = int(kept["step"])
        self.z_t = torch.from_numpy(np.array(kept["z_t"])).to(device)
        if generators := self._generators():
            for each, state in zip(generators, np.array(kept["generator"]), strict=True):
                each.set_state(torch.from_numpy(state))
        self._go_to(self.step)
        outputs = [name for name in kept if name.startswith("output")]
        for name in outputs:
            output = torch.from_numpy(np.array(kept[name])).to(device)
            self._scheduler.model_outputs[int(name.removeprefix("output"))] = output
        if outputs:
            self._scheduler.lower_order_nums = len(outputs)


def sample(
    model: Model,
    noise: Tensor,
    settings: SamplerSettings = DEFAULT,
    *,
    unconditional: Model | None = None,
    generator: Generators = None,
    progress: Callable[[int], None] = lambda step: None,
    clean: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Denoise `noise` (B, C, h, w), drawn from a standard normal; returns clean latents like it.

    Args:
        model: predicts the noise; for "flow" the velocity `noise - clean`.
        unconditional: the model without its conditions, for a `guidance_scale` other than 1 and 0.
        generator, clean, strength: as in `Denoising`.
        progress: called with the number of steps done.

    Raises:
        ConfigError: no such sampler.
    """
    if unconditional is not None:
        model = guided(model, unconditional, settings.guidance_scale)
    run = Denoising(noise, settings, generator=generator, clean=clean, strength=strength)
    while run.step < run.steps:
        run.advance(model(*run.ask()))
        progress(run.step)
    return run.z_t
