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

from engine.audio.rotary import UNIT, rotations
from engine.nets.log_mel import LogMel
from engine.nets.speech_stem import HOP_FRAMES, PAST, STRIDE, SpeechSettings, Stem

_MEL_PAST = 80


@dataclass(slots=True)
class Memory:
    """State of a stream between two hops.

    Shapes: `level` (B, 1); `pending` (B, ahead, hidden), frames not yet settled; `keys`, `values`
    (layers, B, context, hidden), the keys turned by their positions; `frame` counts the settled frames.
    """

    level: Tensor
    pending: Tensor
    keys: Tensor
    values: Tensor
    frame: int = 0


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
        s = self.settings
        tables = rotations(
            memory.frame,
            HOP_FRAMES + s.ahead,
            heads=s.heads,
            head=s.hidden // s.heads,
            rotated=s.rotary,
        )
        features, after = self.hop(
            pcm, memory, torch.from_numpy(tables).expand(len(pcm), -1, -1, -1)
        )
        after.frame = memory.frame + HOP_FRAMES
        return features, after

    def hop(self, pcm: Tensor, memory: Memory, turns: Tensor) -> tuple[Tensor, Memory]:
        """`step` with the rotations (B, 2, ahead + 2, hidden) of its frames."""
        frames, level = self.stem.hop(pcm, memory.level)
        x = torch.cat([memory.pending, frames], 1)
        pending = x[:, HOP_FRAMES:]
        keys, values, outputs = [], [], []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            y = layer.norm1(x)
            query, key = (self._turned(part, turns) for part in (layer.q(y), layer.k(y)))
            value = layer.v(y)
            x = x + layer.out(
                self._attend(
                    query,
                    torch.cat([memory.keys[i], key], 1),
                    torch.cat([memory.values[i], value], 1),
                )
            )
            x = layer.feed(x)
            keys.append(key)
            values.append(value)
            outputs.append(x)
        features = self._features(torch.stack(outputs)[:, :, :HOP_FRAMES], pcm)
        keys_after, values_after = (
            torch.cat([old[:, :, HOP_FRAMES:], torch.stack(new)[:, :, :HOP_FRAMES]], 2)
            for old, new in ((memory.keys, keys), (memory.values, values))
        )
        return features, Memory(level, pending, keys_after, values_after)

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
        return self._features(torch.stack(settled), pcm)

    def _features(self, layers: Tensor, pcm: Tensor) -> Tensor:
        """Settled frames (layers, B, T, hidden), and their sound -> (B, T, features)."""
        mean = F.layer_norm(layers[: self.settings.lower], (self.settings.hidden,)).mean(0)
        spectrum = self.mel(pcm[:, PAST - _MEL_PAST :])
        return torch.cat([self.norm(layers[-1]), mean, spectrum], 2)

    def _turned(self, x: Tensor, turns: Tensor) -> Tensor:
        """Channels (B, T, hidden) turned by `rotations`."""
        partner = torch.arange(self.settings.hidden, device=x.device) ^ 1
        return x * turns[:, 0] + x[:, :, partner] * turns[:, 1]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of turned queries (B, T, hidden) to turned keys (B, S, hidden): (B, T, hidden).

        Each head asks with its own channels and zeros elsewhere, so that nothing is transposed.
        """
        heads, hidden = self.settings.heads, self.settings.hidden
        own = torch.eye(heads).repeat_interleave(hidden // heads, 1).to(query)  # (heads, hidden)
        asked = (query[:, :, None] * (own * (hidden // heads) ** -0.5)).flatten(1, 2)
        told = torch.softmax(asked @ key.transpose(1, 2), -1) @ value
        return (told.unflatten(1, (query.shape[1], heads)) * own).sum(2)

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
        angle = (at.to(x) / UNIT)[:, None] * rate
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
        self,
        window: Tensor,
        turns: Tensor,
        level: Tensor,
        pending: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """`window` (1, PAST + 640), rotations and the memory -> features (1, 2, features), new memory."""
        features, after = self.model.hop(window, Memory(level, pending, keys, values), turns)
        return features, after.level, after.pending, after.keys, after.values
