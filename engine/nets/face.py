"""The detector, the landmark net and the lip net: plain convolutions, BatchNorm that folds, ReLU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.face.detector import CROP, SCORE_NAMES
from engine.face.lips import LIP_CROP
from engine.face.topology import POINTS

GAP_UNIT = 0.1  # of the lip net's second output, so that both are about one
SHAPE_RANK = 160  # dimensions of the linear shape space the landmarks lie in


def mirror_scores() -> NDArray[np.intp]:
    """Index of the score that each becomes in a mirrored face (Left and Right swapped): (52,)."""
    swap = {"Left": "Right", "Right": "Left"}
    partners = [
        next((n.removesuffix(side) + swap[side] for side in swap if n.endswith(side)), n)
        for n in SCORE_NAMES
    ]
    return np.array([SCORE_NAMES.index(name) for name in partners], np.intp)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Two 3 x 3 convolutions and a skip: (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's change to `x`."""
        return torch.relu(x + self.second(self.first(x)))


def _planes(images: Tensor) -> Tensor:
    """Uint8 (N, H, W, 3) -> float (N, 3, H, W) in [-1, 1]."""
    return images.float().permute(0, 3, 1, 2) / 127.5 - 1.0  # TensorRT casts bytes, and no more


class DetectorNet(nn.Module):
    """Face detector: a score and a box for each cell of a 20 x 20 grid.

    In: uint8 (N, 160, 160, 3). Out: (N, 4, 20, 20): logit that a face's centre lies in the cell,
    the centre's offset from the cell's centre in cells (x, y), and log(side / DETECTOR_SIDE).
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            _conv(3, 16, 3, 2), _conv(16, 32, 3, 2), _conv(32, 48, 3, 2), Residual(48)
        )
        self.middle = nn.Sequential(_conv(48, 80, 3, 2), Residual(80))
        self.coarse = nn.Sequential(_conv(80, 96, 3, 2), Residual(96))
        self.from_coarse = _conv(96, 80, 1)
        self.from_middle = _conv(80, 48, 1)
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        answer = nn.Conv2d(48, 4, 1)
        # almost every cell is empty; a typical face is 0.3 of the image
        answer.bias = nn.Parameter(torch.tensor([-4.0, 0.0, 0.0, -1.2]))
        self.head = nn.Sequential(_conv(48, 48), answer)

    def forward(self, images: Tensor) -> Tensor:
        """Score every cell of `images`; shapes as above."""
        fine = self.fine(_planes(images))  # (N, 48, 20, 20)
        middle = self.middle(fine)  # (N, 80, 10, 10)
        middle = middle + self.grow(self.from_coarse(self.coarse(middle)))
        grid: Tensor = self.head(fine + self.grow(self.from_middle(middle)))
        return grid


class LandmarkNet(nn.Module):
    """A face crop -> 478 landmarks, 52 scores, yaw and pitch, and whether it shows a face.

    In: uint8 (N, 192, 192, 3). Out: landmarks (N, 478, 2) in crop units [0, 1]; scores (N, 52) in
    [0, 1]; pose (N, 2) yaw and pitch in radians; presence (N, 1), a logit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _conv(3, 24, 7, 4),
            _conv(24, 48, 3, 2),
            Residual(48),
            _conv(48, 96, 3, 2),
            Residual(96),
            Residual(96),
            _conv(96, 160, 3, 2),
            Residual(160),
            Residual(160),
        )
        grid = CROP // 32
        self.flat = nn.Sequential(
            _conv(160, 48, 1), nn.Flatten(), nn.Linear(48 * grid * grid, 256), nn.ReLU()
        )
        self.shape = nn.Linear(256, SHAPE_RANK)
        self.points = nn.Linear(SHAPE_RANK, POINTS * 2)
        self.scores = nn.Sequential(
            nn.Linear(256 + SHAPE_RANK, 128), nn.ReLU(), nn.Linear(128, len(SCORE_NAMES))
        )
        self.others = nn.Linear(256, 3)
        self.register_buffer("mirror", torch.arange(POINTS))  # a mirrored face's points

    def start_from(self, shapes: Tensor, mirror: NDArray[np.intp]) -> None:
        """Set the output layer to the mean and principal components of `shapes` (N, 478, 2)."""
        self.mirror = torch.from_numpy(mirror)
        flat = shapes.reshape(len(shapes), -1)
        _, spread, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        scale = spread[:SHAPE_RANK, None] / len(flat) ** 0.5
        with torch.no_grad():
            self.points.weight.copy_((axes[:SHAPE_RANK] * scale).T)
            self.points.bias.copy_(flat.mean(0))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict on `crops`; shapes as above."""
        features = self.flat(self.trunk(_planes(crops)))
        shape = self.shape(features)
        landmarks = self.points(shape).reshape(-1, POINTS, 2)
        scores = torch.sigmoid(self.scores(torch.cat([features, shape], 1)))
        others = self.others(features)
        return landmarks, scores, others[:, :2], others[:, 2:]


class MirroredLandmarkNet(nn.Module):
    """The exported form: the mean of the predictions for a crop and for its mirror image."""

    def __init__(self, net: LandmarkNet) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("names", torch.from_numpy(mirror_scores()))

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict on crops (N, 192, 192, 3) uint8; outputs as `LandmarkNet`."""
        crop = crop.float()  # before anything else, as in `_planes`
        both = self.net(torch.cat([crop, crop.flip(2)]))
        landmarks, scores, pose, presence = (rows.unflatten(0, (2, -1)) for rows in both)
        flip, shift = torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 0.0])
        return (
            (landmarks[0] + (landmarks[1][:, self.net.mirror] * flip + shift)) / 2,
            (scores[0] + scores[1][:, self.names]) / 2,
            (pose[0] + pose[1] * flip) / 2,
            (presence[0] + presence[1]) / 2,
        )


class LipNet(nn.Module):
    """A crop around the mouth -> how much of the lips is seen, and how wide they are open.

    In: uint8 (N, 64, 64, 3). Out: the logit of the share (N, 1); the lip gap over the face's height (N, 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _conv(3, 12, 3, 2),
            _conv(12, 24, 3, 2),
            Residual(24),
            _conv(24, 48, 3, 2),
            Residual(48),
            _conv(48, 64, 3, 2),
            _conv(64, 16, 1),
            nn.Flatten(),
            nn.Linear(16 * (LIP_CROP // 16) ** 2, 32),
            nn.ReLU(),
            nn.Linear(32, 2),
        )

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """Judge `crop`; shapes as above."""
        seen, gap = self.net(_planes(crop)).split(1, 1)
        return seen, gap * GAP_UNIT
