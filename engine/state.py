"""Everything that changes while one stream runs. One owner, one thread at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.enroll import Identity
from engine.motion.decoder import MotionState
from engine.motion.expression import ExpressionState
from engine.motion.idle import IdleState
from engine.motion.settle import Settling
from engine.motion.speech_context import SpeechContext
from engine.types import Quality, RgbImage

F32 = NDArray[np.float32]


def _unknown() -> F32:
    return np.zeros(0, np.float32)


@dataclass(slots=True)
class StreamState:
    """One stream: who is shown, what was heard, how the face moves, the last frame."""

    identity: Identity
    speech: Any  # of the speech encoder
    motion: MotionState
    idle: IdleState
    expression: ExpressionState
    cache: Any  # what the last painted frame hands to the next
    noise: Any  # of the picture part, the same for the whole stream
    context: SpeechContext
    samples: int = 0  # of sound so far
    next_index: int = 0
    draw_from: int = 0  # frames before this one were drawn by an earlier run
    quality: Quality = Quality()
    settling: Settling = field(default_factory=Settling)
    painted: int | None = None  # the last frame whose mouth was painted afresh
    parted: float = 0.0  # its lip gap over the face height
    mouth: F32 = field(default_factory=_unknown)  # the coefficients that moved it; empty: unknown
    shown: RgbImage | None = None  # the last picture drawn
