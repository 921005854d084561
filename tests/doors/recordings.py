"""What was recorded of a session, read again: when its beeps are heard and its mouth opens."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 48_000


def beeps(count: int) -> NDArray[np.int16]:
    """A beep of 200 ms in each second, after .5 s."""
    at = np.arange(count * RATE_HZ)
    loud = (at % RATE_HZ >= RATE_HZ // 2) & (at % RATE_HZ < RATE_HZ // 2 + RATE_HZ // 5)
    tone: NDArray[np.int16] = (loud * np.sin(at * 2 * np.pi * 440 / RATE_HZ) * 12_000).astype(
        np.int16
    )
    return tone


def onsets(times: list[float], loud: list[bool]) -> NDArray[np.float64]:
    """When it becomes loud after it was not."""
    return np.array(
        [t for t, now, before in zip(times[1:], loud[1:], loud, strict=False) if now > before]
    )


def heard(path: Path) -> NDArray[np.float64]:
    """When beeps begin (N,), in s, to 5 ms."""
    times: list[float] = []
    loud: list[bool] = []
    with av.open(str(path)) as source:
        for frame in source.decode(audio=0):
            pcm = frame.to_ndarray().reshape(-1)
            for i in range(0, len(pcm) - 239, 240):
                times.append(float(frame.time or 0) + i / RATE_HZ)
                loud.append(bool(np.abs(pcm[i : i + 240]).max() > 0.1))
    return onsets(times, loud)


def seen(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When each picture is shown (N,), and when the fake engine's mouth opens (M,), in s."""
    times: list[float] = []
    opened: list[bool] = []
    with av.open(str(path)) as source:
        for frame in source.decode(video=0):
            luma = frame.to_ndarray()[: frame.height]
            rows = slice(frame.height * 370 // 512, frame.height * 400 // 512)
            columns = slice(frame.width * 240 // 512, frame.width * 270 // 512)
            times.append(float(frame.time or 0))
            opened.append(bool(luma[rows, columns].mean() < 100))
    return np.array(times), onsets(times, opened)
