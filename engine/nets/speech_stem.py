"""Sizes of the speech encoder, and its convolutions: sound -> frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 320  # samples between two frames
HOP_FRAMES = 2
_GRID, _FIELD1 = 64, 127  # samples between two outputs of the first convolution, and under one
_TAPS = (0, 3, 6)  # of the third convolution, on that grid
PAST = 576  # samples before a hop that its first frame covers
_FRAME_GRID, _HOP_GRID = STRIDE // _GRID, HOP_FRAMES * STRIDE // _GRID


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechSettings:
    """Sizes of the speech encoder; the defaults are those of Moonshine tiny."""

    hidden: int = 288
    layers: int = 6
    heads: int = 8
    inner: int = 1152
    lower: int = 4  # layers whose mean is output beside the last one
    rotary: int = 32  # channels of a head that are rotated with position
    context: int = 48  # settled earlier frames that attention covers
    ahead: int = 3  # frames beyond a settled one
    mels: int = 40
    release: float = 3.0  # s over which the level falls by 1/e
    floor: float = 1e-5  # of the level: quieter sound is not made louder

    @property
    def features(self) -> int:
        """Width of a feature frame: the last layer, the mean of the lower ones, the log-mels."""
        return 2 * self.hidden + self.mels


class Stem(nn.Module):
    """Three convolutions: sound -> frames, normalised by the level of the sound in between."""

    def __init__(self, settings: SpeechSettings) -> None:
        super().__init__()
        width = settings.hidden
        self.conv1 = nn.Conv1d(1, width, _FIELD1, _GRID, bias=False)
        self.scale = nn.Parameter(torch.ones(width, 1))
        self.shift = nn.Parameter(torch.zeros(width, 1))
        self.conv2 = nn.Conv1d(width, 2 * width, 7)
        self.conv3 = nn.Conv1d(2 * width, width, 3)
        self.crest = nn.Parameter(torch.tensor(0.35))  # mean power over the level that is tracked
        self.floor = settings.floor
        self.fall = HOP_FRAMES * STRIDE / 16_000 / settings.release

    def forward(self, pcm: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """`pcm` (B, PAST + 640 H), `level` (B, 1) -> frames (B, 2 H, hidden), levels (B, H)."""
        x = torch.tanh(self.conv1(pcm[:, None]))
        levels = self._levels(x, level)
        loud = torch.sqrt(self.crest.abs() * levels).repeat_interleave(HOP_FRAMES, 1)[:, None]
        flat = F.conv1d(self.shift.expand(-1, 7)[None], self.conv2.weight, self.conv2.bias)
        taps = []
        for tap in _TAPS:
            shifted = (self.scale * x)[:, :, tap : x.shape[2] - 6 + tap]
            rise = F.conv1d(shifted, self.conv2.weight, stride=_FRAME_GRID)
            taps.append(F.gelu(rise / loud + flat))
        kernel = self.conv3.weight
        assert self.conv3.bias is not None
        out = self.conv3.bias[:, None] + sum(
            (torch.einsum("oi,bit->bot", kernel[:, :, i], tap) for i, tap in enumerate(taps)),
            torch.zeros(()),
        )
        return F.gelu(out).transpose(1, 2), levels

    def hop(self, pcm: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` of one hop, each weight read once: `pcm` (B, PAST + 640) -> (B, 2, hidden), (B, 1)."""
        x = torch.tanh(self.conv1(pcm[:, None]))
        levels = self._levels(x, level)
        loud = torch.sqrt(self.crest.abs() * levels)[:, None]
        x = self.scale * x / loud + self.shift
        begin = _FRAME_GRID * torch.arange(HOP_FRAMES)[:, None] + torch.tensor(_TAPS)
        fields = x[:, :, begin.flatten()[:, None] + torch.arange(7)]  # (B, hidden, 2 * 3, 7)
        fields = fields.transpose(1, 2).flatten(2)
        assert self.conv2.bias is not None
        assert self.conv3.bias is not None
        taps = F.gelu(fields @ self.conv2.weight.flatten(1).T + self.conv2.bias)
        kernel = self.conv3.weight.permute(2, 1, 0).flatten(0, 1)  # (3 * 2 hidden, hidden)
        out = taps.unflatten(1, (HOP_FRAMES, len(_TAPS))).flatten(2) @ kernel
        return F.gelu(out + self.conv3.bias), levels

    def _levels(self, x: Tensor, level: Tensor) -> Tensor:
        """Level of each hop: the greater of its own power and the decayed maximum before it."""
        power = F.avg_pool1d((x**2).mean(1)[:, None], _HOP_GRID + 8, _HOP_GRID)[:, 0]
        count = torch.arange(1, power.shape[1] + 1).to(power) * self.fall
        known = torch.cat(
            [level.clamp_min(self.floor).log(), power.clamp_min(self.floor).log() + count], 1
        )
        strongest = (
            known.amax(1, keepdim=True) if len(count) == 1 else known.cummax(1).values[:, 1:]
        )
        return (strongest - count).exp().clamp_min(self.floor)
