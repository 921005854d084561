"""Audio to motion: a variational auto-encoder of dilated causal convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionSettings:
    """Sizes of the motion network; it runs at 25 frames a second."""

    features: int = 616  # of one feature frame; a motion frame takes two
    words: int = 288  # the first of them (the encoder's last layer), masked in the animators' style
    channels: int = 12  # motion channels; the exported graph spreads them to 52 coefficients
    columns: int = 28  # animators' columns, an auxiliary output in training
    hidden: int = 128
    latent: int = 16
    prior: tuple[int, ...] = (1, 2, 4, 8)  # dilations of the audio side
    decoder: tuple[int, ...] = (1, 2)
    dropout: float = 0.15
    feature_dropout: float = 0.1  # share of the features dropped for a whole training excerpt

    @classmethod
    def hearing(cls, features: int) -> MotionSettings:
        """Sizes for a speech encoder of width `features`.

        That is the bundled one, or one layer of another encoder, of which no style masks anything.
        """
        return cls() if features == cls().features else cls(features=features, words=0)


class Dilated(nn.Module):
    """Residual gated convolution over this frame and two earlier ones, `dilation` apart.

    The style scales and shifts what enters it.
    """

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.norm = nn.LayerNorm(width)
        self.style = nn.Linear(1, 2 * width, bias=False)
        self.conv = nn.Conv1d(width, 2 * width, 3, dilation=dilation)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, style: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """`x` (B, T, width) after `past` (B, 2 * dilation, width) -> result and new past."""
        scale, shift = self.style(style)[:, None].chunk(2, 2)
        seen = torch.cat([past, self.norm(x) * (1 + scale) + shift], 1)
        value, gate = self.conv(seen.transpose(1, 2)).transpose(1, 2).chunk(2, 2)
        y = self.out(self.drop(torch.tanh(value) * torch.sigmoid(gate)))
        return x + y, seen[:, -self.past :]


@dataclass(slots=True)
class Decoded:
    """Outputs for T frames."""

    channels: Tensor  # (B, T, channels), not yet limited to [0, 1]
    columns: Tensor  # (B, T, columns)
    energy: Tensor  # (B, T, 1)
    memory: Tensor  # (B, past, hidden)


class MotionVae(nn.Module):
    """p(z | sound) and p(motion | sound, z), causal; q(z | sound, motion) for training.

    The animators' recordings are few, and in one language. With the encoder's last layer, which
    distinguishes words, the network would memorise them, so that layer is masked in their style.
    """

    centre: Tensor
    scale: Tensor
    words: Tensor

    def __init__(self, settings: MotionSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.register_buffer("centre", torch.zeros(s.features))
        self.register_buffer("scale", torch.ones(s.features))
        self.register_buffer("words", (torch.arange(s.features) < s.words).float())
        self.enter = nn.Sequential(
            nn.Linear(2 * s.features, s.hidden), nn.GELU(), nn.Dropout(s.dropout)
        )
        self.style = nn.Linear(1, s.hidden, bias=False)
        self.sound = nn.ModuleList(Dilated(s.hidden, d, s.dropout) for d in s.prior)
        self.prior = nn.Linear(s.hidden, 2 * s.latent)
        self.guess = nn.Sequential(
            nn.Conv1d(s.hidden + s.channels, s.hidden, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(s.hidden, 2 * s.latent, 5, padding=2),
        )
        self.mix = nn.Linear(s.hidden + s.latent, s.hidden)
        self.voice = nn.ModuleList(Dilated(s.hidden, d, s.dropout) for d in s.decoder)
        self.norm = nn.LayerNorm(s.hidden)
        self.channels = nn.Linear(s.hidden, s.channels)
        self.columns = nn.Linear(s.hidden, s.columns)
        self.energy = nn.Linear(s.hidden, 1)
        for head in (self.channels, self.columns, self.energy):
            nn.init.normal_(head.weight, std=0.005)

    @property
    def past(self) -> int:
        """Frames of memory, of all layers together."""
        return sum(layer.past for layer in (*_layers(self.sound), *_layers(self.voice)))

    def remember(self, batch: int = 1) -> Tensor:
        """An empty memory (B, past, hidden)."""
        return torch.zeros(batch, self.past, self.settings.hidden)

    def standardise(self, features: Tensor) -> None:
        """Set the input normalisation to the mean and spread of `features` (N, features)."""
        self.centre.copy_(features.mean(0))
        self.scale.copy_(1 / features.std(0).clamp_min(1e-3))

    def encode(
        self, features: Tensor, style: Tensor, memory: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Features (B, 2 T, features) -> speech encoding (B, T, hidden), memory of each layer.

        `style` (B, 1): 0 for the mouth shapes of the phone rules, 1 for those of the animators.
        `memory` is (B, past, hidden).
        """
        features = (features - self.centre) * self.scale * (1 - style[:, None] * self.words)
        features = F.dropout1d(
            features.transpose(1, 2), self.settings.feature_dropout, self.training
        )
        features = features.transpose(1, 2)
        x = self.enter(features.unflatten(1, (-1, 2)).flatten(2)) + self.style(style)[:, None]
        after: list[Tensor] = []
        at = 0
        for layer in _layers(self.sound):
            x, past = layer(x, style, memory[:, at : at + layer.past])
            after.append(past)
            at += layer.past
        return x, after

    def decode(
        self, sound: Tensor, z: Tensor, style: Tensor, memory: Tensor, after: list[Tensor]
    ) -> Decoded:
        """Motion of latent `z` (B, T, latent) for the speech encoding `sound` (B, T, hidden)."""
        x = self.mix(torch.cat([sound, z], 2))
        after = list(after)
        at = sum(layer.past for layer in _layers(self.sound))
        for layer in _layers(self.voice):
            x, past = layer(x, style, memory[:, at : at + layer.past])
            after.append(past)
            at += layer.past
        x = self.norm(x)
        return Decoded(self.channels(x), self.columns(x), self.energy(x), torch.cat(after, 1))

    def forward(self, features: Tensor, noise: Tensor, style: Tensor, memory: Tensor) -> Decoded:
        """Motion from sound alone.

        Shapes:
            in: features (B, 2 T, features), noise (B, T, latent), zeros for the likeliest motion,
            style (B, 1), memory (B, past, hidden).
        """
        sound, after = self.encode(features, style, memory)
        mean, spread = self.prior(sound).chunk(2, 2)
        return self.decode(sound, mean + noise * limit(spread).exp(), style, memory, after)

    def learn(
        self, features: Tensor, style: Tensor, channels: Tensor
    ) -> tuple[Decoded, Decoded, Tensor]:
        """Outputs from the posterior and from the prior's mean, and the mean KL divergence ().

        Shapes:
            in: features (B, 2 T, features), style (B, 1), true channels (B, T, channels).
        """
        memory = self.remember(len(features)).to(features)
        sound, after = self.encode(features, style, memory)
        prior_mean, prior_log = self.prior(sound).chunk(2, 2)
        both = torch.cat([sound, channels], 2).transpose(1, 2)
        mean, log = self.guess(both).transpose(1, 2).chunk(2, 2)
        prior_log, log = limit(prior_log), limit(log)
        z = mean + torch.randn_like(mean) * log.exp()
        gap = (
            prior_log
            - log
            + (log.exp() ** 2 + (mean - prior_mean) ** 2) / (2 * prior_log.exp() ** 2)
            - 0.5
        )
        posterior = self.decode(sound, z, style, memory, after)
        return posterior, self.decode(sound, prior_mean, style, memory, after), gap.mean()


def _layers(stack: nn.ModuleList) -> list[Dilated]:
    return [layer for layer in stack if isinstance(layer, Dilated)]


def limit(log: Tensor) -> Tensor:
    """Keep a log standard deviation (any shape, (...,)) within (-4, 1)."""
    return -1.5 + 2.5 * torch.tanh(log / 2.5)


class MotionGraph(nn.Module):
    """The exported form: two feature frames in, 52 coefficients of one motion frame out."""

    spread: Tensor

    def __init__(self, model: MotionVae, spread: NDArray[np.float32]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("spread", torch.from_numpy(spread))

    def forward(
        self, features: Tensor, memory: Tensor, noise: Tensor, style: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`features` (1, 2, width), `noise` (1, 1, latent) -> (1, 52), energy (1, 1), memory."""
        out = self.model(features, noise, style, memory)
        coefficients = torch.matmul(F.relu(out.channels[:, 0]), self.spread).clamp(0, 1)
        return coefficients, out.energy[:, 0].clamp(0, 1), out.memory
