"""Sound files in: any format the decoder knows -> 16 kHz mono, or a plain reason why not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from engine.config import SAMPLE_RATE_HZ
from engine.errors import MediaError

RATE = SAMPLE_RATE_HZ
LONGEST_S = 3600.0  # an hour: a bound on memory (230 MB), not on taste


def check_sound_file(path: Path) -> None:
    """Refuse what holds no sound before anything is loaded for it; only the header is read.

    Raises:
        MediaError: no such file, empty, no sound file, or without a sound track.
    """
    with _opened(path):
        pass


def read_audio(path: Path | str, *, longest_s: float = LONGEST_S) -> NDArray[np.float32]:
    """Decode the first sound track of `path` to (N,) float32 at 16 kHz, mono, in [-1, 1].

    Raises:
        MediaError: no such file, not a sound file, no sound track, damaged, empty, not finite
            or longer than `longest_s`; the message says which.
    """
    path = Path(path)
    with _opened(path) as container:
        sound = _decode(container, path.name, longest_s)
    if not len(sound):
        raise MediaError(f"{path.name} holds no sound: its track is empty or cut off")
    if not np.isfinite(sound).all():
        raise MediaError(f"{path.name} holds samples that are no numbers (NaN or infinite)")
    return np.clip(sound, -1, 1)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """A file with a sound track; what goes wrong while it is read is a `MediaError`."""
    if not path.is_file():
        raise MediaError(f"no file {path}")
    if path.stat().st_size == 0:
        raise MediaError(f"{path.name} is empty (0 bytes)")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise MediaError(f"{path.name} has no sound track")
            yield container
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise MediaError(f"{path.name} is not a sound file that can be read: {error}") from error


def _decode(
    container: av.container.InputContainer, name: str, longest_s: float
) -> NDArray[np.float32]:
    resampler = AudioResampler(format="flt", layout="mono", rate=RATE)
    pieces: list[NDArray[np.float32]] = []
    length, limit = 0, int(longest_s * RATE)
    for frame in container.decode(audio=0):
        frame.pts = None  # a broken clock in the file must not stretch the sound
        for out in resampler.resample(frame):
            pieces.append(_samples(out))
            length += out.samples
        if length > limit:
            raise MediaError(f"{name} is longer than {longest_s / 60:g} minutes; cut it first")
    if pieces:
        pieces += [_samples(out) for out in resampler.resample(None)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    return frame.to_ndarray().reshape(-1).astype(np.float32)
