"""Sound of any chunking in, one window per video frame out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]


class HopBuffer:
    """Cuts a stream into windows that advance by one hop and overlap by `past` samples.

    Window t holds the samples [t * hop - past, (t + 1) * hop). What lies before the first sample
    counts as silence, so a window waits for its own hop and for nothing else.

    Args:
        hop: samples per video frame, 640 at 16 kHz and 25 fps.
        past: samples before the hop that a window also holds.

    Law:
        How the input was cut never changes the windows.
    """

    def __init__(self, hop: int, past: int) -> None:
        if hop < 1 or past < 0:
            raise ValueError(f"wants hop >= 1 and past >= 0, got hop={hop}, past={past}")
        self.hop, self.past = hop, past
        self._held: Pcm = np.zeros(past, np.float32)

    def push(self, pcm: Pcm) -> Pcm:
        """Take `pcm` (N,) and return the windows it completed (T, past + hop).

        Raises:
            ValueError: `pcm` is not float32 of one dimension.
        """
        if pcm.ndim != 1 or pcm.dtype != np.float32:
            raise ValueError(f"wants float32 of shape (N,), got {pcm.dtype} of shape {pcm.shape}")
        held = np.concatenate([self._held, pcm])
        count = (len(held) - self.past) // self.hop
        windows = np.empty((count, self.past + self.hop), np.float32)
        for t in range(count):
            windows[t] = held[t * self.hop : t * self.hop + self.past + self.hop]
        self._held = held[count * self.hop :]
        return windows
