"""Moonshine's speech encoder (arXiv 2410.15608), run over a stream.

The public encoder takes a whole sound at once: its frames are 24 ms apart, one norm spans the
whole sound, attention is unlimited in both directions. Here the same weights run hop by hop:

- The stem is shift-invariant on a grid of 4 ms, so it is evaluated every 20 ms instead of every
  24, and rotary positions keep the old unit.
- The norm over the sound becomes a running level that rises at once and falls over seconds.
- A frame is settled when `ahead` more frames are there. Later frames are computed provisionally with
  each hop and again with the next; only settled frames leave keys and values. So the look-ahead of the
  layers does not add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.nets.log_mel import LogMel

STRIDE = 320  # samples between two frames
HOP_FRAMES = 2
_GRID, _FIELD1 = 64, 127  # samples between two outputs of the first convolution, and under one
_TAPS = (0, 3, 6)  # of the third convolution, on that grid
PAST = 576  # samples before a hop that its first frame covers
_FRAME_GRID, _HOP_GRID = STRIDE // _GRID, HOP_FRAMES * STRIDE // _GRID
_UNIT = 384 / STRIDE  # rotary positions count frames of 24 ms
_MEL_PAST = 80


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


@dataclass(slots=True)
class Memory:
    """State of a stream between two hops.

    Shapes: `level` (B, 1); `pending` (B, ahead, hidden), frames not yet settled; `keys`, `values`
    (layers, B, context, hidden), the keys before their rotation.
    """

    level: Tensor
    pending: Tensor
    keys: Tensor
    values: Tensor


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


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, settings: SpeechSettings) -> None:
        super().__init__()
        width = settings.hidden
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.fc1 = nn.Linear(width, settings.inner)
        self.fc2 = nn.Linear(settings.inner, width)

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward part with its residual: (B, ..., hidden) -> the same."""
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class StreamingMoonshine(nn.Module):
    """PCM -> features, whole or hop by hop with the same result.

    Row k of the output is [last layer, mean of the `lower` layers, log-mel spectrum]: the layers of
    frame k - 4, the spectrum of frame k, frame k being samples 320 k to 320 (k + 1). It depends
    only on sound before the end of frame k. The last layer represents words; the lower ones keep more
    of the phonetics, also in languages the encoder was not trained on.
    """

    def __init__(self, settings: SpeechSettings) -> None:
        super().__init__()
        self.settings = settings
        self.stem = Stem(settings)
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.hidden, bias=False)
        self.mel = LogMel(settings.mels)

    def remember(self, batch: int = 1) -> Memory:
        """An empty memory of full size, as the exported graph takes it; shapes as in `Memory`."""
        s = self.settings
        cache = torch.zeros(s.layers, batch, s.context, s.hidden)
        pending = torch.zeros(batch, s.ahead, s.hidden)
        return Memory(torch.full((batch, 1), s.floor), pending, cache, cache.clone())

    def step(self, pcm: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One hop: `pcm` (B, PAST + 640) -> features (B, 2, features), memory after."""
        frames, levels = self.stem(pcm, memory.level)
        x = torch.cat([memory.pending, frames], 1)
        pending, context = x[:, HOP_FRAMES:], self.settings.context
        keys, values, settled = [], [], []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            y = layer.norm1(x)
            key = torch.cat([memory.keys[i], layer.k(y)], 1)
            value = torch.cat([memory.values[i], layer.v(y)], 1)
            x = layer.feed(x + layer.out(self._attend(layer.q(y), key, value)))
            keys.append(key[:, HOP_FRAMES : HOP_FRAMES + context])
            values.append(value[:, HOP_FRAMES : HOP_FRAMES + context])
            settled.append(x[:, :HOP_FRAMES])
        features = self._features(settled, pcm)
        return features, Memory(levels[:, -1:], pending, torch.stack(keys), torch.stack(values))

    def forward(self, pcm: Tensor, memory: Memory | None = None) -> Tensor:
        """A whole sound: `pcm` (B, PAST + 640 H) -> features (B, 2 H, features).

        Without a memory attention covers only this sound; with `remember()` it follows silence.
        """
        known = memory is not None
        memory = memory or self.remember(len(pcm))
        s, hops = self.settings, (pcm.shape[1] - PAST) // (HOP_FRAMES * STRIDE)
        frames, _ = self.stem(pcm, memory.level.to(pcm))
        line = torch.cat([memory.pending.to(pcm), frames], 1)
        block = HOP_FRAMES + s.ahead
        x = line.unfold(1, block, HOP_FRAMES).transpose(2, 3)  # (B, H, block, hidden)
        mask = self._whole_mask(hops, known, pcm.device)
        settled = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            y = layer.norm1(x)
            past = (memory.keys[i].to(pcm), memory.values[i].to(pcm))
            x = layer.feed(x + layer.out(self._attend_whole(layer, y, past, mask)))
            settled.append(x[:, :, :HOP_FRAMES].flatten(1, 2))
        return self._features(settled, pcm)

    def _features(self, layers: list[Tensor], pcm: Tensor) -> Tensor:
        """Settled frames (B, T, hidden) of each layer, and their sound -> (B, T, features)."""
        width = (self.settings.hidden,)
        lower = [F.layer_norm(x, width) for x in layers[: self.settings.lower]]
        mean = torch.stack(lower).mean(0)
        spectrum = self.mel(pcm[:, PAST - _MEL_PAST :])
        return torch.cat([self.norm(layers[-1]), mean, spectrum], 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of queries at the last positions of the keys: (B, T, hidden)."""
        at = torch.arange(key.shape[1], device=key.device)
        q = self._turn(self._heads(query), at[-query.shape[1] :])
        k = self._turn(self._heads(key), at)
        out = F.scaled_dot_product_attention(q, k, self._heads(value))
        return out.transpose(1, 2).flatten(2)

    def _attend_whole(
        self, layer: Layer, y: Tensor, past: tuple[Tensor, Tensor], mask: Tensor
    ) -> Tensor:
        """Attention of every hop of `y` (B, H, block, hidden) to settled frames and its own block."""
        batch, hops, block, _ = y.shape
        q, k, v = layer.q(y), layer.k(y), layer.v(y)
        context = past[0].shape[1]
        settled = context + HOP_FRAMES * hops
        at = torch.arange(settled + block, device=y.device)
        own = context + HOP_FRAMES * torch.arange(hops, device=y.device)[:, None]
        own = (own + torch.arange(block, device=y.device)).flatten()

        def rows(t: Tensor) -> Tensor:
            return t[:, :, :HOP_FRAMES].flatten(1, 2)

        keys = self._turn(self._heads(torch.cat([past[0], rows(k)], 1)), at[:settled])
        values = self._heads(torch.cat([past[1], rows(v)], 1))
        q = self._turn(self._heads(q.flatten(1, 2)), at[own])
        k = self._turn(self._heads(k.flatten(1, 2)), at[own]).unflatten(2, (hops, block))
        v = self._heads(v.flatten(1, 2)).unflatten(2, (hops, block))
        scale = q.shape[-1] ** -0.5
        far = (q @ keys.transpose(2, 3)) * scale + mask  # (B, heads, H * block, settled)
        near = q.unflatten(2, (hops, block)) @ k.transpose(3, 4) * scale
        share = torch.cat([far, near.flatten(2, 3)], 3).softmax(3)
        out = share[..., :settled] @ values
        out = out + (share[..., settled:].unflatten(2, (hops, block)) @ v).flatten(2, 3)
        return out.transpose(1, 2).flatten(2).unflatten(1, (hops, block))

    def _whole_mask(self, hops: int, known: bool, device: torch.device) -> Tensor:
        """Additive mask (H * block, context + 2 H): hop h attends to the `context` frames settled before it,
        to those before the sound only if they are `known`."""
        context, block = self.settings.context, HOP_FRAMES + self.settings.ahead
        first = HOP_FRAMES * torch.arange(hops, device=device).repeat_interleave(block)[:, None]
        key = torch.arange(context + HOP_FRAMES * hops, device=device)[None]
        seen = (key >= first) & (key < first + context) & (known | (key >= context))
        return torch.zeros(seen.shape, device=device).masked_fill(~seen, -1e4)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.settings.heads, -1)).transpose(1, 2)

    def _turn(self, x: Tensor, at: Tensor) -> Tensor:
        """Rotary embedding (arXiv 2104.09864) of positions `at` (T,) on pairs of the first `rotary` channels."""
        half = self.settings.rotary // 2
        rate = torch.exp(torch.arange(half).to(x) * (-math.log(10_000) / half))
        angle = (at.to(x) / _UNIT)[:, None] * rate
        cos, sin = angle.cos(), angle.sin()
        turning, rest = x.split([2 * half, x.shape[-1] - 2 * half], -1)
        a, b = turning.unflatten(-1, (half, 2)).unbind(-1)
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        return torch.cat([turned, rest], -1)


class SpeechGraph(nn.Module):
    """The exported form: one hop in, two frames out, memory as tensors."""

    def __init__(self, model: StreamingMoonshine) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, window: Tensor, level: Tensor, pending: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """`window` (1, PAST + 640) and the memory -> features (1, 2, features), new memory."""
        features, after = self.model.step(window, Memory(level, pending, keys, values))
        return features, after.level, after.pending, after.keys, after.values
