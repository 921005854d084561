"""Landmarks to image maps: flow, warp, line maps and the mouth opening. fp32 always.

Half precision here moves pixels (measured: up to 233 of 255), so these functions switch autocast
off and are exported as a graph of their own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.face.landmarks import CROP_UNIT
from engine.face.topology import (
    FLOW_MIDPOINTS,
    FLOW_POINTS,
    HEAD_MIDPOINTS,
    HEAD_POINTS,
    INNER_LOWER_LIP,
    INNER_UPPER_LIP,
    LINE_GROUPS,
    LOWER_JAW,
    NECK,
    NOSE_RIDGE,
    SCALP,
    STABLE,
    UPPER_OVAL,
)

# Gaussian kernels of the flow in crop units: sigma and weight. The wide one carries the head, the
# narrow one the lips; each is the eighth power of the one before it, so one exp serves all three.
SIGMA_WIDE = 0.27
KERNEL_WEIGHTS = (0.002, 0.03, 1.0)
FLOOR = 3e-7  # of the summed weight: far from every point the flow fades to nothing


def unit_line(n: int) -> Tensor:
    """Pixel centres of a side of n pixels in [0, 1]: (n,)."""
    return (torch.arange(n, dtype=torch.float32) + 0.5) / n


def unit_grid(n: int) -> Tensor:
    """Pixel centres of an n x n image in [0, 1]: (n * n, 2), x first."""
    line = unit_line(n)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def control_points(
    landmarks: Tensor,
    points: tuple[int, ...] = FLOW_POINTS,
    pairs: tuple[tuple[int, int], ...] = FLOW_MIDPOINTS,
) -> Tensor:
    """The points that drive a flow, and midpoints of pairs: (B, 478, 2) -> (B, P, 2)."""
    first, second = (list(side) for side in zip(*pairs, strict=True))
    middle = (landmarks[:, first] + landmarks[:, second]) / 2
    return torch.cat([landmarks[:, list(points)], middle], 1)


def similarity(reference: Tensor, target: Tensor, points: Tensor) -> Tensor:
    """Move `points` (B, N, 2) as a rigid head moves from `reference` to `target` (B, 478, 2).

    Least squares over the points that do not move with expression: turn, scale and shift.
    """
    stable = list(STABLE)
    a, b = reference[:, stable], target[:, stable]
    from_, to = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
    a, b, p = a - from_, b - to, points - from_
    size = a.square().sum((1, 2))[:, None]
    cos = (a * b).sum((1, 2))[:, None] / size
    sin = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1)[:, None] / size
    x = cos * p[..., 0] - sin * p[..., 1]
    y = sin * p[..., 0] + cos * p[..., 1]
    return torch.stack([x, y], -1) + to


def neck_points(
    reference: Tensor, target: Tensor, shares: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Points below the jaw (B, N, 2) in both faces (B, 478, 2): they follow the head, not the jaw.

    Their share of the head's motion falls with the distance. Without them the chin would drag the
    collar along with every syllable.

    Args:
        shares: (B, N), where they are not those of `NECK`.
    """
    jaw, nose = reference[:, list(LOWER_JAW)], reference[:, NOSE_RIDGE[-2], None]
    out = jaw - nose
    out = out / out.square().sum(-1, keepdim=True).sqrt()
    rings = torch.cat([jaw + reach * out for reach, _ in NECK], 1)
    if shares is None:
        shares = torch.tensor([share for _, share in NECK]).to(jaw).repeat_interleave(jaw.shape[1])
    moved = rings + shares[..., None] * (similarity(reference, target, rings) - rings)
    return rings, moved


def scalp_points(reference: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Points of hair and ears (B, N, 2) in both faces (B, 478, 2): they lie behind the face and turn less.

    What the hairline lacks of the face's motion is what its depth does; theirs is larger.
    """
    oval, nose = reference[:, list(UPPER_OVAL)], reference[:, NOSE_RIDGE[-2], None]
    out = oval - nose
    out = out / out.square().sum(-1, keepdim=True).sqrt()
    behind = target[:, list(UPPER_OVAL)] - similarity(reference, target, oval)
    lag = behind.mean(1, keepdim=True)  # a small turn shifts all that is as deep alike
    rings = [oval + reach * out for reach, _ in SCALP]
    moved = [
        similarity(reference, target, ring) + behind + (depth - 1) * lag
        for ring, (_, depth) in zip(rings, SCALP, strict=True)
    ]
    return torch.cat(rings, 1), torch.cat(moved, 1)


def flow_at(x: Tensor, y: Tensor, reference: Tensor, target: Tensor) -> Tensor:
    """Backward flow on a grid: offset from each output point to its place in the reference crop.

    A Gaussian of the distance is one of the row times one of the column, so the weights of all points of the
    grid are a product of two small matrices and never exist themselves.

    Args:
        x, y: (W,) and (H,) positions of the grid's columns and rows.
        reference: (B, P, 2) control points in the reference.
        target: (B, P, 2) the same points in the output.

    Returns:
        (B, 2, H, W): kernel-weighted mean of `reference - target`.
    """
    offsets = reference - target
    moved = torch.cat([offsets, torch.ones_like(offsets[..., :1])], -1)  # (B, P, 3)
    across, down = _kernels(x, target[..., 0]), _kernels(y, target[..., 1])  # (B, W or H, 3 P)
    weights = torch.tensor(KERNEL_WEIGHTS, dtype=moved.dtype, device=moved.device)
    values = (moved.transpose(1, 2)[:, :, None] * weights[:, None]).flatten(2)  # (B, 3, 3 P)
    rows = (down[:, None] * values[:, :, None]).flatten(1, 2)  # (B, 3 H, 3 P)
    sums = (rows @ across.transpose(1, 2)).unflatten(1, (3, len(y)))  # offsets and their weight
    return sums[:, :2] / (sums[:, 2:] + FLOOR)


def _kernels(line: Tensor, at: Tensor) -> Tensor:
    """The three kernels along one axis: line (N,), points (B, P) -> (B, N, 3 P), the wide one first."""
    squares = (line[:, None] - at[:, None]).square()
    wide = torch.exp(squares * (-1 / (2 * SIGMA_WIDE**2)))
    middle = wide.square().square().square()
    return torch.cat([wide, middle, middle.square().square().square()], -1)


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Sample `picture` (B, C, H, W) at identity + `flow` (B, 2, n, n) -> (B, C, H, W).

    The flow is in units of the image's side.
    """
    height, width = picture.shape[-2:]
    n = flow.shape[-1]
    where = unit_grid(n).view(n, n, 2).permute(2, 0, 1) + flow
    if n != height:
        where = F.interpolate(where, size=(height, width), mode="bilinear", align_corners=False)
    where = where.permute(0, 2, 3, 1) * 2 - 1
    return F.grid_sample(picture, where, align_corners=False, padding_mode="border")


def follow(picture: Tensor, reference: Tensor, target: Tensor, grid: int = 64) -> Tensor:
    """Move the head of `picture` (1, C, S, S) from landmarks `reference` to `target` (1, 478, 2).

    Landmarks are in [0, 1] of the picture. What is far from the head stays where it is.
    """
    eyes, base = reference[:, [33, 263]], reference[:, 2]
    unit = (eyes[:, 1] - eyes[:, 0]).norm(dim=-1) + (base - eyes.mean(1)).norm(dim=-1)
    to_crop = 1 / (CROP_UNIT * unit)  # the kernels are as wide as in the crop around a mouth
    line = unit_line(grid).to(picture) * to_crop
    before, after = (
        torch.cat([control_points(face * to_crop, HEAD_POINTS, HEAD_MIDPOINTS), neck], 1)
        for face, neck in zip(
            (reference, target), neck_points(reference * to_crop, target * to_crop), strict=True
        )
    )
    return warp(picture, flow_at(line, line, before, after) / to_crop)


def line_maps(landmarks: Tensor, n: int, sigma: float = 0.018) -> Tensor:
    """Draw each polyline of `LINE_GROUPS` as a soft line: (B, 478, 2) -> (B, G, n, n).

    |g - a|^2 and (g - a) . (b - a) of a grid point g and a segment ab are sums of a term of the column
    and one of the row; the distance is put together from the two.
    """
    line = unit_line(n).to(landmarks)
    maps = []
    for group in LINE_GROUPS:
        a = landmarks[:, list(group[:-1])]
        ab = landmarks[:, list(group[1:])] - a
        across, down = line - a[..., :1], line - a[..., 1:]  # (B, S, n)
        squares = across.square()[:, :, None] + down.square()[..., None]  # (B, S, n, n)
        dot = (across * ab[..., :1])[:, :, None] + (down * ab[..., 1:])[..., None]
        length = ab.square().sum(-1)[..., None, None]
        along = (dot / (length + 1e-8)).clamp(0, 1)
        distance = (squares + along * (along * length - 2 * dot)).amin(1)
        maps.append(torch.exp(-distance / (2 * sigma**2)))
    return torch.stack(maps, 1)


def curve_height(landmarks: Tensor, row: tuple[int, ...], x: Tensor, sigma: float) -> Tensor:
    """Height y of a curve of landmarks at positions `x` (n,): (B, 478, 2) -> (B, n), crop units."""
    px, py = landmarks[:, list(row), 0], landmarks[:, list(row), 1]
    near = torch.softmax(-((px[:, :, None] - x) ** 2) / (2 * sigma**2), 1)
    return (near * py[:, :, None]).sum(1)


def mouth_opening(landmarks: Tensor, n: int) -> Tensor:
    """Soft mask of what lies between the inner lips: (B, 478, 2) -> (B, 1, n, n)."""
    line = unit_line(n)
    top, bottom = (
        curve_height(landmarks, row, line, 0.018)[:, None]  # (B, 1, n)
        for row in (INNER_UPPER_LIP, INNER_LOWER_LIP)
    )
    corners = landmarks[:, [INNER_UPPER_LIP[0], INNER_UPPER_LIP[-1]], 0]
    low, high = corners.amin(1)[:, None, None], corners.amax(1)[:, None, None]
    across = torch.sigmoid((line - low) * 90) * torch.sigmoid((high - line) * 90)
    y = line.view(1, n, 1)
    inside = torch.sigmoid((y - top) * 70) * torch.sigmoid((bottom - y) * 70)
    return (inside * across)[:, None]


class CropGeometry(nn.Module):
    """The geometric inputs of the painter for one frame.

    Shapes:
        in: crop (B, 3, 128, 128), latents (B, z, 32, 32), landmarks of reference and target
            (B, 478, 2) in crop units; `lines` (B, G, 32, 32) of the reference, where they are drawn
            already.
        out: warped crop, warped latents, maps (B, 2 * G + 1, 32, 32), opening (B, 1, 64, 64).
    """

    def __init__(self, grid: int = 64) -> None:
        super().__init__()
        self.grid = grid

    def forward(
        self,
        crop: Tensor,
        latents: Tensor,
        reference: Tensor,
        target: Tensor,
        lines: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Warp the reference towards the target and draw both."""
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            n = latents.shape[-1]
            line = unit_line(self.grid).to(target)
            flow = flow_at(line, line, control_points(reference), control_points(target))
            half = F.avg_pool2d(flow, self.grid // n)
            known = line_maps(reference, n) if lines is None else lines
            maps = [line_maps(target, n), known, mouth_opening(target, n)]
            return (
                warp(crop, flow),
                warp(latents, half),
                torch.cat(maps, 1),
                mouth_opening(target, 2 * n),
            )
