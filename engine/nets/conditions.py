"""Conditions of the full-size networks: those of a stream and those of one of its frames."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from engine.nets.attention import KeyValues


@dataclass(frozen=True, slots=True)
class Guidance:
    """Conditions of one frame, for AnimateNet.

    Shapes: image (B, 3, 8 h, 8 w) in [0, 1]; landmarks (B, 68, 3) and placement (B, 8) as
    `engine.face.placement` makes them, None for neither. With DiffTalk's conditioning landmarks
    (B, 39, 3), concat (B, 8, h, w), an input of IdentityNet, and speech (B, 16, W).
    """

    image: Tensor
    landmarks: Tensor | None = None
    placement: Tensor | None = None
    concat: Tensor | None = None
    speech: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions of a whole stream: text embedding, identity, the portraits' keys and values.

    Shapes: text (B, 77, D); identity (B, N, D), None without a face encoder; reference: one (K, V) a
    transformer block, each (B or 1, R * S, C); scale (16,) or (B, 16) weight of the identity per
    transformer block in the order down, middle, up; weight (B or 1, R) of each portrait in
    `reference`; control (B or 1,) weight of AnimateNet's guidance. A weight of 0 is as if the condition were
    absent; None stands for 1 everywhere.
    """

    text: Tensor
    identity: Tensor | None = None
    reference: KeyValues | None = None
    scale: Tensor | None = None
    weight: Tensor | None = None
    control: Tensor | None = None
