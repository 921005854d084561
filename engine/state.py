"""Everything that changes while one stream runs. One owner, one thread at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.enroll import Identity
from engine.expression import ExpressionState
from engine.idle import IdleState
from engine.motion import MotionState
from engine.picture import FrameCache
from engine.speech import SpeechState


@dataclass(slots=True)
class StreamState:
    """One stream: who is shown, what was heard, how the face moves, the last frame."""

    identity: Identity
    speech: SpeechState
    motion: MotionState
    idle: IdleState
    expression: ExpressionState
    cache: FrameCache
    noise: NDArray[np.float32]  # (1, 16, 32, 32), the same for every frame of the stream
    next_index: int = 0
