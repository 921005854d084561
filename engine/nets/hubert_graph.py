"""HuBERT as one graph of a fixed window: sound in, the features of its middle out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from engine.audio.hubert import HubertWindow


class HubertGraph(nn.Module):
    """A `transformers.HubertModel` (base, large or any size) over windows of one length.

    Args:
        normalise: give each window zero mean and unit variance first, as the public feature
            extractors of both models do to a whole file.
    """

    def __init__(self, model: Any, window: HubertWindow, *, normalise: bool = True) -> None:
        super().__init__()
        self.model = model.eval()
        self.width = int(model.config.hidden_size)
        self._kept = slice(window.left, window.left + window.hop)
        self._normalise = normalise

    def forward(self, window: Tensor) -> tuple[Tensor]:
        """Sound (B, samples) at 16 kHz -> features (B, hop, width)."""
        if self._normalise:
            centred = window - window.mean(-1, keepdim=True)
            window = centred / (centred.square().mean(-1, keepdim=True) + 1e-7).sqrt()
        return (self.model(window).last_hidden_state[:, self._kept],)
