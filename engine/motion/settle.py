"""A speaker who is cut off: the mouth comes to rest at once, and moves again when speech begins anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.face import arkit

F32 = NDArray[np.float32]
CLOSING = (0.25, 0.0)  # of the mouth's motion, frame by frame: shut within 80 ms
SPEAKS_AGAIN = 0.25  # energy of speech that moves the mouth again,
OPENING = 0.34  # by so much more each frame


@dataclass(slots=True)
class Settling:
    """How far the mouth of one stream has come to rest. `frames` since; None: it moves as it is spoken."""

    frames: int | None = None
    share: float = 1.0  # of the mouth's motion that is left

    def begin(self, still_old: int) -> None:
        """From the next frame on, but for those `still_old` ones that were spoken before."""
        self.frames = -still_old

    def step(self, spoken: F32, energy: F32) -> F32:
        """Coefficients (T, 52) of the next frames, spoken with `energy` (T,), as they are to be shown."""
        if self.frames is None:
            return spoken
        shown = spoken.copy()
        for row, loud in zip(shown, energy, strict=True):
            row[arkit.MOUTH] *= self._next(float(loud))
        return shown

    def _next(self, loud: float) -> float:
        if self.frames is None:
            return 1.0
        frame, self.frames = self.frames, self.frames + 1
        if 0 <= frame < len(CLOSING):
            self.share = CLOSING[frame]
        elif frame >= len(CLOSING) and loud > SPEAKS_AGAIN:
            self.share = min(1.0, self.share + OPENING)
            if self.share == 1.0:
                self.frames = None
        return self.share
