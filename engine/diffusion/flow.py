"""The rectified flow's times and its Euler sampler, the same for numpy arrays and torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

Latents = TypeVar("Latents", bound=Any)  # (B, C, h, w), of numpy or torch

SHIFT = 6.0  # of the sampling times


def sampling_times(steps: int) -> list[float]:
    """Times of the sampler, from 1 (noise) to 0: steps + 1 of them.

    Shifted towards the noise (arXiv 2403.03206, formula 23): with known landmarks and
    reference the face is nearly determined there, and steps near 0 only accumulate their own errors.
    """
    even = [1 - i / steps for i in range(steps + 1)]
    return [SHIFT * t / (1 + (SHIFT - 1) * t) for t in even]


def flow_path(
    predict: Callable[[Latents, float], Any], noise: Latents, steps: int
) -> Iterator[tuple[Latents, float]]:
    """Euler on the rectified path (arXiv 2209.03003): latents (B, C, h, w) and time after each step.

    Args:
        predict: z_t (B, C, h, w) and its time -> the clean latents z_0 (B, C, h, w) it stands for, or
            what numpy can read as such; after the last step they are yielded unchanged.
        noise: (B, C, h, w), where the path begins, at time 1.
        steps: evaluations of `predict`.
    """
    z_t = noise
    for now, left in pairwise(sampling_times(steps)):
        z_0 = predict(z_t, now)
        z_t = z_0 + left / now * (z_t - z_0) if left else z_0
        yield z_t, left
