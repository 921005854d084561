"""Progressive latent fusion: all frames of a long video are sampled together, window by window.

At every step each window of frames is predicted separately, and the predictions of a frame that is in
several windows are averaged with triangular weights before the next step. MAGIC-Talk (arXiv
2510.22810) names the method; weights and windows are those of MimicMotion (arXiv 2406.19680). All
frames must be known, so it does not stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.diffusion.samplers import Denoising
from engine.errors import ConfigError

Window = tuple[Tensor, Tensor, Tensor]  # z_t (W, C, h, w), t (W,), indices of the frames (W,)
WindowsModel = Callable[[Sequence[Window]], list[Tensor]]  # the prediction of each, like its z_t
TOGETHER = 4  # windows of a step that are predicted at once


def window_weights(window: int) -> Tensor:
    """Triangular weights (window,) of a window's positions, small at its ends."""
    rising = 2 * (torch.arange(window) + 0.5) / window
    return torch.minimum(rising, 2 - rising)


def fusion_windows(
    frames: int, window: int, overlap: int, *, pinned: bool = True
) -> list[list[int]]:
    """Indices of the frames of each overlapping window; the last window ends with the video.

    Args:
        pinned: frame 0, the reference, comes first in every window.

    Raises:
        ConfigError: windows of that size and overlap do not advance.
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


class LatentFusion:
    """The sampling of one long video, some windows of one step at a time; it can be interrupted and resumed.

    Args:
        model: predicts the frames of windows from their latents, times and indices.
        run: the sampler over all frames, started from their noise (F, C, h, w).
        pinned: frame 0, the reference, comes first in every window.

    Attributes:
        done: windows predicted so far, over all steps; `total` of them make the video.

    Raises:
        ConfigError: windows of that size and overlap do not advance.
    """

    def __init__(
        self, model: WindowsModel, run: Denoising, *, window: int, overlap: int, pinned: bool = True
    ) -> None:
        frames = len(run.z_t)
        self.done = 0
        self.windows = fusion_windows(frames, window, overlap, pinned=pinned)
        self.total = len(self.windows) * run.steps
        self._model, self._run = model, run
        self._summed = torch.zeros_like(run.z_t)
        self._weight = run.z_t.new_zeros(frames, 1, 1, 1)
        for members in self.windows:
            self._weight[members] += self._share(members)

    @property
    def latents(self) -> Tensor:
        """Clean latents (F, C, h, w), once all is done."""
        return self._run.z_t

    def work(self) -> None:
        """Predict the next windows, `TOGETHER` at most; after the last one of a step, take the step."""
        at = self.done % len(self.windows)
        taken = self.windows[at : at + TOGETHER]
        z_t, t = self._run.ask()
        rows = [torch.tensor(members, device=z_t.device) for members in taken]
        made = self._model([(z_t[own], t[own], own) for own in rows])
        for members, own, prediction in zip(taken, rows, made, strict=True):
            self._summed[own] += self._share(members) * prediction
        if at + len(taken) == len(self.windows):
            self._run.advance(self._summed / self._weight)
            self._summed = torch.zeros_like(self._summed)
        self.done += len(taken)

    def _share(self, members: list[int]) -> Tensor:
        return window_weights(len(members)).to(self._run.z_t)[:, None, None, None]

    def pack(self) -> dict[str, NDArray[Any]]:
        """The state as arrays: done (), summed (F, C, h, w) and those of `Denoising.pack`."""
        kept = {"done": np.array(self.done), "summed": self._summed.cpu().numpy()}
        return {**kept, **self._run.pack()}

    def unpack(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """Resume where a video of the same settings was packed; shapes as `pack` returns them."""
        self.done = int(kept["done"])
        self._summed = torch.from_numpy(np.array(kept["summed"])).to(self._summed)
        self._run.unpack(kept)
