"""Landmarks drawn exactly as the annotator of the public MediaPipe-face ControlNet draws them.

Black canvas; face oval, eyes, brows and lips as lines of thickness 2, each group in its colour, later
groups over earlier ones; each pupil a square of 4 x 4 pixels; at the end the channels are reversed.
The annotator draws with OpenCV's `line`, whose shapes are whole pixels: a strip filled row by row in
16-bit fixed point, its outline, and a dot at each end. The same integer arithmetic is done here on
tensors, a span of pixels a row, so that the drawing can live inside a graph.

Not the same: lines within one pixel of the image's edge, which OpenCV clips before it draws.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from engine.face import topology as t

ONE = 1 << 16  # fixed point
HALF = ONE >> 1
FAR = 1 << 30  # a column outside every image

RIGHT_LOWER_BROW, LEFT_LOWER_BROW = (46, 53, 52, 65, 55), (276, 283, 282, 295, 285)
LIPS = (t.OUTER_LOWER_LIP, t.OUTER_UPPER_LIP, t.INNER_LOWER_LIP, t.INNER_UPPER_LIP)

# Polylines of each group in the order they are drawn, and the colour in the finished image (RGB).
GROUPS: tuple[tuple[tuple[tuple[int, ...], ...], tuple[int, int, int]], ...] = (
    ((t.OVAL,), (10, 200, 10)),
    ((t.LEFT_EYE,), (10, 200, 180)),
    ((t.LEFT_BROW, LEFT_LOWER_BROW), (10, 220, 180)),
    ((t.RIGHT_EYE,), (180, 200, 10)),
    ((t.RIGHT_BROW, RIGHT_LOWER_BROW), (180, 220, 10)),
    (LIPS, (10, 180, 10)),
)
PUPILS = ((468, (250, 200, 10)), (473, (10, 200, 250)))

LOWER_JAW = t.OVAL[12:25]  # between the angles of the jaw, which are among DiffTalk's 39 landmarks


def connections(*, mouth: bool = True) -> tuple[tuple[int, int, int], ...]:
    """Every line as (first landmark, second landmark, group).

    Args:
        mouth: off, neither lips nor lower jaw are drawn, so that no contour shows them.
    """
    hidden = set() if mouth else {*LOWER_JAW, *(point for line in LIPS for point in line)}
    return tuple(
        (a, b, group)
        for group, (polylines, _) in enumerate(GROUPS)
        for polyline in polylines
        for a, b in pairwise(polyline)
        if not {a, b} & hidden
    )


def line_spans(start: Tensor, end: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """First and last column that a line of thickness 2 covers in each row.

    Shapes:
        in: start, end (..., 2), whole pixels x, y (int64). out: (..., rows) each, int64; a row the
        line does not touch has first > last.
    """
    y = torch.arange(rows, device=start.device)
    corners = _corners(start, end)  # (..., 4, 2)
    following = corners.roll(-1, -2)
    low, high = _outline(corners, following, y)
    fill_low, fill_high = _fill(corners, following, y)
    moved = (start != end).any(-1)[..., None]
    low = torch.where(moved, torch.minimum(low.amin(-2), fill_low), FAR)
    high = torch.where(moved, torch.maximum(high.amax(-2), fill_high), -FAR)
    for point in (start, end):  # a dot of 5 pixels, like a plus
        px, away = point[..., :1], (y - point[..., 1:]).abs()
        low = torch.where(away <= 1, torch.minimum(low, px - 1 + away), low)
        high = torch.where(away <= 1, torch.maximum(high, px + 1 - away), high)
    return low, high


def _corners(start: Tensor, end: Tensor) -> Tensor:
    """Corners of the strip of half width 1 in fixed point: (..., 2) twice -> (..., 4, 2)."""
    along = (end - start).double()
    length = along.square().sum(-1, keepdim=True).sqrt().clamp(min=1)
    across = torch.stack([along[..., 1], -along[..., 0]], -1) * (ONE / length)
    d = across.round().long()  # half to even, as OpenCV rounds
    a, b = start * ONE, end * ONE
    return torch.stack([a + d, a - d, b - d, b + d], -2)


def _outline(first: Tensor, second: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Spans of the strip's four edges, each a run of single pixels: (..., 4, 2) -> (..., 4, rows)."""
    size = (second - first).abs()
    flat = (size[..., 0] > size[..., 1])[..., None]  # one pixel a column, else one a row
    major = torch.where(flat, 0, 1)
    swap = second.gather(-1, major) < first.gather(-1, major)
    a, b = torch.where(swap, second, first), torch.where(swap, first, second)
    (ax, ay), (bx, by) = ((p[..., :1], p[..., 1:]) for p in (a, b))
    longest = torch.where(flat, size[..., :1], size[..., 1:])
    longest = longest + 1 - longest % 2  # its lowest bit is set, so that it is never 0
    rise = torch.where(flat, by - ay, bx - ax)
    step = torch.div(rise * ONE, longest, rounding_mode="trunc")
    count = _floor(torch.where(flat, bx - ax, by - ay), ONE)

    k = y - _pixel(ay)  # steep: row y is pixel k
    column = _pixel(ax + k * step)
    steep = (k >= 0) & (k <= count)

    # Flat: pixel k lies in row y while above <= k * step < below.
    above, below = y * ONE - (ay + HALF), (y + 1) * ONE - (ay + HALF)
    pace = step.abs().clamp(min=1)
    k_low = torch.where(step > 0, -_floor(-above, pace), _floor(-below, pace) + 1)
    k_high = torch.where(step > 0, -_floor(-below, pace) - 1, _floor(-above, pace))
    level = step == 0
    here = (above <= 0) & (below > 0)
    k_low = torch.where(level, torch.where(here, 0, FAR), k_low).clamp(min=0)
    k_high = torch.minimum(torch.where(level, torch.where(here, count, -1), k_high), count)
    begin = _pixel(ax)
    shallow = k_low <= k_high

    drawn = (flat & shallow) | (~flat & steep)
    low = torch.where(drawn, torch.where(flat, begin + k_low, column), FAR)
    high = torch.where(drawn, torch.where(flat, begin + k_high, column), -FAR)
    last_x, last_row = _pixel(bx), y == _pixel(by)  # the far end is always drawn
    low = torch.where(last_row, torch.minimum(low, last_x), low)
    high = torch.where(last_row, torch.maximum(high, last_x), high)
    return low, high


def _floor(a: Tensor, b: Tensor | int) -> Tensor:
    return torch.div(a, b, rounding_mode="floor")  # exported graphs shift negatives wrongly


def _pixel(fixed: Tensor) -> Tensor:
    """The pixel a fixed-point place rounds to."""
    return _floor(fixed + HALF, ONE)


def _fill(first: Tensor, second: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Spans of the strip's inside between its edges: (..., 4, 2) -> (..., rows)."""
    swap = second[..., 1:] < first[..., 1:]
    a, b = torch.where(swap, second, first), torch.where(swap, first, second)
    top, bottom = _pixel(a[..., 1:]), _pixel(b[..., 1:])
    tall = (bottom - top).clamp(min=1)
    lean = torch.div((b[..., :1] - a[..., :1]) * 2 + tall, 2 * tall, rounding_mode="trunc")
    column = _pixel(a[..., :1] + (y - top) * lean)
    lowest = bottom.amax(-2, keepdim=True)
    crossed = (bottom > top) & (y >= top) & ((y < bottom) | ((y == lowest) & (bottom == lowest)))
    low = torch.where(crossed, column, FAR).amin(-2)
    high = torch.where(crossed, column, -FAR).amax(-2)
    return low, high


class FaceLines(nn.Module):
    """Draws the control image of a face.

    Shapes:
        in: landmarks (B, 478, 2) in [0, 1] from the image's left and top edge.
        out: (B, 3, height, width) float32 in [0, 1], RGB.
    """

    starts: Tensor
    ends: Tensor
    groups: Tensor
    palette: Tensor

    def __init__(self, height: int, width: int | None = None, *, mouth: bool = True) -> None:
        super().__init__()
        self.height, self.width = height, width or height
        first, second, group = zip(*connections(mouth=mouth), strict=True)
        self._members = [[i for i, g in enumerate(group) if g == n] for n in range(len(GROUPS))]
        palette = [colour for _, colour in GROUPS] + [colour for _, colour in PUPILS]
        for name, value in (
            ("starts", torch.tensor(first)),
            ("ends", torch.tensor(second)),
            ("groups", torch.tensor(group)),
            ("palette", torch.tensor([(0, 0, 0), *palette]) / 255),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, landmarks: Tensor) -> Tensor:
        """Draw; a line or pupil with a point outside the image is left out."""
        H, W = self.height, self.width
        size = torch.tensor([W, H], device=landmarks.device)
        exact = landmarks.double()
        pixels = torch.minimum((exact * size).floor().long(), size - 1)
        inside = ((exact >= 0) & (exact <= 1)).all(-1)

        shown = inside[:, self.starts] & inside[:, self.ends]  # (B, S)
        low, high = line_spans(pixels[:, self.starts], pixels[:, self.ends], H)
        covered = self._cover(low, torch.where(shown[..., None], high, -FAR))  # (B, G, H, W)

        layers = [covered[:, g] * (g + 1) for g in range(len(GROUPS))]
        x, y = torch.arange(W, device=size.device), torch.arange(H, device=size.device)
        for i, (landmark, _) in enumerate(PUPILS):
            px, py = pixels[:, landmark].unbind(-1)
            seen = inside[:, landmark] & (px >= 2) & (py >= 2)
            across = (x >= px[:, None] - 2) & (x < px[:, None] + 2)
            down = (y >= py[:, None] - 2) & (y < py[:, None] + 2)
            square = across[:, None] & down[:, :, None] & seen[:, None, None]
            layers.append(square * (len(GROUPS) + i + 1))
        top = torch.stack(layers, 1).amax(1)  # later groups lie over earlier ones
        return self.palette[top].permute(0, 3, 1, 2)

    def _cover(self, low: Tensor, high: Tensor) -> Tensor:
        """Which pixels each group's spans (B, S, H) cover: (B, G, H, W) of 0 and 1.

        By counting where spans begin and end, which adds into places; an exported graph compares every
        pixel with every span instead, for TensorRT has no such adding.
        """
        if torch.onnx.is_in_onnx_export():
            x = torch.arange(self.width, device=low.device)
            spans = ((low[:, m, :, None], high[:, m, :, None]) for m in self._members)
            return torch.stack([((x >= a) & (x <= b)).float().amax(1) for a, b in spans], 1).long()
        B, _, H = low.shape
        W, G = self.width, len(GROUPS)
        low, high = low.clamp(min=0), high.clamp(max=W - 1)
        weight = (low <= high).int()
        row = self.groups[:, None] * H + torch.arange(H, device=low.device)  # (S, H)
        begin = row * (W + 1) + torch.where(weight > 0, low, 0)
        end = row * (W + 1) + torch.where(weight > 0, high + 1, 0)
        change = torch.zeros(B, G * H * (W + 1), dtype=torch.int32, device=low.device)
        change = change.scatter_add(1, begin.flatten(1), weight.flatten(1))
        change = change.scatter_add(1, end.flatten(1), -weight.flatten(1))
        depth = change.view(B, G, H, W + 1).cumsum(-1)[..., :W]
        return (depth > 0).long()
