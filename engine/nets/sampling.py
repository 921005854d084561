"""Samplers as plain functions over diffusers' schedulers, and two ways to sample a long video.

A model is a function (z_t, t) -> prediction. Guidance, fusion of windows and the frame cache are
functions that make such a function out of others, so every sampler works with each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)
from torch import Tensor

from engine.errors import ConfigError
from engine.picture import sampling_times

Sampler = Literal["ddim", "euler", "dpm++", "lcm", "tcd", "flow"]
Model = Callable[[Tensor, Tensor], Tensor]  # z_t (B, C, h, w), t (B,) -> prediction like z_t
FrameModel = Callable[[Tensor, Tensor, Tensor], Tensor]  # the same, and which frames (B,) these are
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
    scheduler = make_scheduler(sampler, trailing=trailing)
    times = set_steps(scheduler, steps)
    again = {"generator": generator} if sampler in FEW_STEPS else {}
    z_t = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for step, t in enumerate(times):
        scaled = z_t
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(z_t, t)
        prediction = model(scaled, t.to(noise.device).expand(len(noise)))
        z_t = scheduler.step(prediction, t, z_t, return_dict=False, **again)[0]
        progress(step + 1)
    return z_t


def window_weights(window: int) -> Tensor:
    """Triangular weights (window,) of a window's positions, small at its ends."""
    rising = 2 * (torch.arange(window) + 0.5) / window
    return torch.minimum(rising, 2 - rising)


def fusion_windows(
    frames: int, window: int, overlap: int, *, pinned: bool = True
) -> list[list[int]]:
    """Frames of each overlapping window; the last one ends with the video.

    Args:
        pinned: frame 0, the reference, stands first in every window.

    Raises:
        ConfigError: windows of that size and overlap never get on.
    """
    lead = 1 if pinned else 0
    stride = window - overlap
    if not 0 <= overlap < window - lead:
        raise ConfigError(f"overlap={overlap} must be below window={window}, less a pinned frame")
    if frames <= window:
        return [list(range(frames))]
    body = window - lead
    starts = list(range(lead, frames - body + 1, max(1, min(stride, body))))
    if starts[-1] + body < frames:
        starts.append(frames - body)
    return [[*range(lead), *range(start, start + body)] for start in starts]


def fused(
    model: FrameModel, frames: int, *, window: int = 16, overlap: int = 4, pinned: bool = True
) -> Model:
    """Progressive latent fusion: one model over all frames out of one over windows of them.

    At every step each window is predicted by itself and the predictions of a frame are averaged
    with `window_weights` (arXiv 2406.19680). All frames must be known, so it does not stream.
    """
    windows = fusion_windows(frames, window, overlap, pinned=pinned)

    def predict(z_t: Tensor, t: Tensor) -> Tensor:
        total, weight = torch.zeros_like(z_t), z_t.new_zeros(frames, 1, 1, 1)
        for members in windows:
            rows = torch.tensor(members, device=z_t.device)
            share = window_weights(len(members)).to(z_t)[:, None, None, None]
            total[rows] += share * model(z_t[rows], t[rows], rows)
            weight[rows] += share
        return total / weight

    return predict


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
