"""The losses of the landmark net and of the face detector."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.face import topology
from engine.face.detector import CROP
from engine.training.face.crops import Crops
from engine.training.face.scenes import Scenes

WING, WING_BEND = 8.0, 2.0  # pixels of the crop


def point_weights() -> Tensor:
    """(478,) weight of each landmark's error, mean 1: lips, eyelids and irises count most."""
    weights = np.ones(topology.POINTS, np.float32)
    weights[[*topology.RIGHT_BROW, *topology.LEFT_BROW]] = 1.5
    weights[[*topology.RIGHT_EYE, *topology.LEFT_EYE]] = 3.0
    weights[[*topology.RIGHT_IRIS, *topology.LEFT_IRIS]] = 3.0
    weights[sorted({p for row in topology.LIP_ROWS for p in row})] = 3.0
    return torch.from_numpy(weights / weights.mean())


def wing_loss(error: Tensor) -> Tensor:
    """Wing loss of errors (...,) in pixels, each: logarithmic below 8 pixels, linear above."""
    size = error.abs()
    offset = WING - WING * np.log(1 + WING / WING_BEND)
    return torch.where(size < WING, WING * torch.log1p(size / WING_BEND), size - offset)


def landmark_loss(out: tuple[Tensor, ...], crops: Crops, weights: Tensor) -> dict[str, Tensor]:
    """The parts () of the landmark net's loss; crops without a face only count in `presence`.

    Args:
        out: landmarks (N, 478, 2) in crop units, scores (N, 52), angles (N, 2) in radians and
            the logit of presence (N, 1).
        weights: (478,) of the landmarks, see `point_weights`.
    """
    landmarks, scores, angles, presence = out
    there = torch.from_numpy(crops.present)
    share = there / there.sum().clamp(min=1)
    wing = wing_loss((landmarks - torch.from_numpy(crops.landmarks)) * CROP)
    return {
        "points": ((wing.mean(2) * weights).mean(1) * share).sum(),
        "scores": 15 * ((scores - torch.from_numpy(crops.scores)).abs().mean(1) * share).sum(),
        "angles": 4 * ((angles - torch.from_numpy(crops.angles)).abs().mean(1) * share).sum(),
        "presence": 2 * functional.binary_cross_entropy_with_logits(presence[:, 0], there),
    }


def detector_loss(cells: Tensor, scenes: Scenes) -> dict[str, Tensor]:
    """Penalty-reduced focal loss of the scores, L1 of the boxes near a middle: two parts ().

    Args:
        cells: what the face detector gives, (N, 4, 20, 20): logit of the score, then the box.
    """
    heat, boxes, near = (torch.from_numpy(a) for a in (scenes.heat, scenes.boxes, scenes.near))
    p = torch.sigmoid(cells[:, 0]).clamp(1e-5, 1 - 1e-5)
    middle = heat >= 1
    hit = -((1 - p) ** 2) * torch.log(p) * middle
    miss = -(p**2) * torch.log(1 - p) * (1 - heat) ** 4 * ~middle
    box = (cells[:, 1:] - boxes).abs().sum(1) * near
    return {
        "score": (hit + miss).sum() / middle.sum().clamp(min=1),
        "box": box.sum() / near.sum().clamp(min=1),
    }
