"""The lips cut out of a batch of images, to weight their errors separately."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mouth_crop(images: Tensor, landmarks: Tensor, side: int) -> Tensor:
    """The lips and a little skin: (B, C, H, W), landmarks (B, 478, 2) in [0, 1] -> (B, C, side, side)."""
    corners = landmarks[:, [61, 291]]
    centre = (corners.mean(1) + landmarks[:, [13, 14]].mean(1)) / 2
    half = (corners[:, 0] - corners[:, 1]).norm(dim=-1) * 0.85
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 2 * half
    theta[:, :, 2] = centre * 2 - 1
    grid = F.affine_grid(theta, [len(images), 1, side, side], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")
