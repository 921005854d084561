"""PSNR and SSIM of frames that belong to each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]
AT_ONCE = 8  # frames of 256 x 256 in a batch; fewer of larger ones
SIDE = 256
BORDER = 5  # pixels where the window would reach over the edge: left out, as its authors do


def psnr(generated: U8, real: U8) -> F64:
    """10 log10(255^2 / MSE) of each of frames (T, H, W, 3) -> (T,); infinite where they are equal.

    Raises:
        ValueError: the shapes differ.
    """
    _check(generated, real)
    found = np.empty(len(real))
    for t, (a, b) in enumerate(zip(generated, real, strict=True)):
        error = np.square(a.astype(np.float64) - b).mean()
        found[t] = np.inf if error == 0 else 10 * np.log10(255**2 / error)
    return found


def ssim(generated: U8, real: U8) -> F64:
    """SSIM of each of frames (T, H, W, 3) -> (T,): RGB, Gaussian 11 x 11, sigma 1.5, K .01 and .03.

    Raises:
        ValueError: the shapes differ, or frames are smaller than the window.
    """
    _check(generated, real)
    if min(real.shape[1:3]) <= 2 * BORDER:
        raise ValueError(f"frames of {real.shape[2]} x {real.shape[1]} are too small for SSIM")
    found = []
    for a, b in zip(batches(generated), batches(real), strict=True):
        _, at = structural_similarity_index_measure(
            a, b, data_range=255.0, reduction="none", sigma=1.5, return_full_image=True
        )
        found.append(at[..., BORDER:-BORDER, BORDER:-BORDER].mean((1, 2, 3)))
    return np.asarray(torch.cat(found).double().numpy())


def batches(frames: U8, most: int = AT_ONCE) -> Iterator[Tensor]:
    """Frames (T, H, W, 3) as float tensors (B, 3, H, W), 0 to 255; `most` of 256 x 256 at once."""
    size = max(1, most * SIDE * SIDE // (frames.shape[1] * frames.shape[2] or 1))
    for first in range(0, len(frames), size):
        yield torch.from_numpy(frames[first : first + size]).permute(0, 3, 1, 2).float()


def _check(generated: U8, real: U8) -> None:
    if generated.shape != real.shape or real.ndim != 4:
        raise ValueError(f"wants (T, H, W, 3) twice, got {generated.shape} and {real.shape}")
