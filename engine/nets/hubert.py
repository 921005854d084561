"""A small HuBERT that hears a stream: the parts of `transformers.HubertModel`, run causally.

Frame k (20 ms) sees only sound before its own end. Look-ahead is a matter of *when* an answer is
read: the motion net reads frame t's mouth two hops later, so every layer has used that sound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel

FIELD, STRIDE = 400, 320  # samples under one frame, and between two
PAST = FIELD - STRIDE  # samples needed before the first new one


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechSettings:
    """Sizes of the speech encoder."""

    hidden: int = 192
    layers: int = 4
    heads: int = 4
    inner: int = 768
    conv_dim: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 128)
    context: int = 48  # earlier frames that attention sees
    position: int = 16  # frames under the positional convolution, all in the past
    mels: int = 40

    @property
    def features(self) -> int:
        """Width of a feature frame: what was heard, and its log-mel spectrum."""
        return self.hidden + self.mels

    def hubert(self) -> HubertConfig:
        """The same sizes in the form of the public class."""
        return HubertConfig(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.inner,
            conv_dim=self.conv_dim,
            num_conv_pos_embeddings=self.position,
            num_conv_pos_embedding_groups=8,
            feat_extract_norm="layer",
            feat_extract_activation="relu",
            conv_bias=True,
            do_stable_layer_norm=True,
            hidden_dropout=0.05,
            activation_dropout=0.05,
            attention_dropout=0.0,
            layerdrop=0.0,
            apply_spec_augment=False,
        )


@dataclass(slots=True)
class Memory:
    """What a stream leaves behind: inputs of the positional convolution, keys and values.

    Shapes: `position` (B, position - 1, hidden); `keys`, `values` (layers, B, context, hidden).
    """

    position: Tensor
    keys: Tensor
    values: Tensor


class LogMel(nn.Module):
    """Log-mel spectrum of the same 25 ms windows as the network's frames."""

    basis: Tensor
    bank: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        size, bins = 512, 257
        time = torch.arange(FIELD, dtype=torch.float64)
        angle = 2 * math.pi * torch.arange(bins, dtype=torch.float64)[:, None] * time / size
        window = torch.hann_window(FIELD, periodic=True, dtype=torch.float64)
        basis = torch.cat([torch.cos(angle) * window, torch.sin(angle) * window]).float()
        self.register_buffer("basis", basis[:, None], persistent=False)
        self.register_buffer("bank", _mel_bank(mels, bins), persistent=False)
        self.bins = bins

    def forward(self, pcm: Tensor) -> Tensor:
        """`pcm` (B, PAST + 320 T) -> (B, T, mels), about zero mean and unit size for speech."""
        spectrum = F.conv1d(pcm[:, None], self.basis, stride=STRIDE)
        power = spectrum[:, : self.bins] ** 2 + spectrum[:, self.bins :] ** 2
        mel = torch.matmul(power.transpose(1, 2), self.bank)
        return (torch.log(mel + 1e-4) + 3.0) / 4.0


def _mel_bank(mels: int, bins: int) -> Tensor:
    top = 1127 * math.log(1 + 8000 / 700)
    edges = 700 * (torch.exp(torch.linspace(20.0, top, mels + 2) / 1127) - 1)
    frequency = torch.linspace(0, 8000, bins)[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp_min(0)


class StreamingHubert(nn.Module):
    """PCM -> features, whole or hop by hop with the same result.

    The transformer hears the learnt convolutions and, added to them, the log-mel spectrum: learnt
    from little data, the convolutions alone take far longer to become as good an ear.
    """

    def __init__(self, settings: SpeechSettings) -> None:
        super().__init__()
        self.settings = settings
        self.hubert: Any = HubertModel(settings.hubert())
        self.mel = LogMel(settings.mels)
        self.spectral = nn.Linear(settings.mels, settings.hidden)

    def remember(self, batch: int = 1) -> Memory:
        """An empty memory of full size (zeros), the form the exported graph takes."""
        s = self.settings
        cache = torch.zeros(s.layers, batch, s.context, s.hidden)
        return Memory(torch.zeros(batch, s.position - 1, s.hidden), cache, cache.clone())

    def front(self, pcm: Tensor) -> Tensor:
        """`pcm` (B, PAST + 320 T) -> output of the convolutions (B, T, conv_dim[-1])."""
        out: Tensor = self.hubert.feature_extractor(pcm).transpose(1, 2)
        return out

    def step(self, pcm: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """New frames on top of a full memory: `pcm` (B, PAST + 320 T) -> (B, T, features)."""
        steps, past = (pcm.shape[1] - PAST) // STRIDE, memory.keys.shape[2]
        return self._run(pcm, self.front(pcm), memory, _band(steps, past, past, pcm.device))

    def forward(self, pcm: Tensor) -> tuple[Tensor, Tensor]:
        """A whole sound from an empty memory.

        Returns:
            features (B, T, features) and the output of the convolutions (B, T, conv_dim[-1]).
        """
        front = self.front(pcm)
        blank = self.remember(len(pcm))
        empty = Memory(
            blank.position.to(pcm.device),
            *(c[:, :, :0].to(pcm.device) for c in (blank.keys, blank.values)),
        )
        mask = _band(front.shape[1], 0, self.settings.context, pcm.device)
        return self._run(pcm, front, empty, mask)[0], front

    def _run(
        self, pcm: Tensor, front: Tensor, memory: Memory, mask: Tensor
    ) -> tuple[Tensor, Memory]:
        model, context = self.hubert, self.settings.context
        mel = self.mel(pcm)
        x = model.feature_projection(front) + self.spectral(mel)
        seen = torch.cat([memory.position, x], 1)
        spread = model.encoder.pos_conv_embed
        x = x + spread.activation(_valid(spread.conv, seen.transpose(1, 2))).transpose(1, 2)
        keys, values = [], []
        for i, layer in enumerate(model.encoder.layers):
            x, key, value = self._layer(layer, x, memory.keys[i], memory.values[i], mask)
            keys.append(key[:, -context:])
            values.append(value[:, -context:])
        x = model.encoder.layer_norm(x)
        after = Memory(
            seen[:, -(self.settings.position - 1) :], torch.stack(keys), torch.stack(values)
        )
        return torch.cat([x, mel], 2), after

    def _layer(
        self, layer: Any, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        attention, heads = layer.attention, self.settings.heads
        y = layer.layer_norm(x)
        keys = torch.cat([keys, attention.k_proj(y)], 1)
        values = torch.cat([values, attention.v_proj(y)], 1)
        query, key, value = (
            t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (attention.q_proj(y), keys, values)
        )
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + layer.dropout(attention.out_proj(out.transpose(1, 2).flatten(2)))
        return x + layer.feed_forward(layer.final_layer_norm(x)), keys, values


def _valid(conv: Any, x: Tensor) -> Tensor:
    """Apply the positional convolution without its own padding: the past is already there."""
    return F.conv1d(x, conv.weight, conv.bias, groups=conv.groups)


def _band(steps: int, past: int, context: int, device: torch.device) -> Tensor:
    """Additive mask (steps, past + steps): frame i sees itself and `context` frames before."""
    query = torch.arange(steps, device=device)[:, None] + past
    key = torch.arange(past + steps, device=device)[None]
    allowed = (key <= query) & (key >= query - context)
    return torch.zeros(steps, past + steps, device=device).masked_fill(~allowed, -1e4)


class SpeechGraph(nn.Module):
    """The exported form: one hop in, two frames out, memory as tensors."""

    def __init__(self, model: StreamingHubert) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, window: Tensor, position: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`window` (1, PAST + 640) and the memory -> features (1, 2, features), new memory."""
        features, after = self.model.step(window, Memory(position, keys, values))
        return features, after.position, after.keys, after.values
