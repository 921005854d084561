"""Sound files in: any format the decoder knows -> 16 kHz mono, or a plain reason why not."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from engine.config import SAMPLE_RATE_HZ
from engine.errors import MediaError

RATE = SAMPLE_RATE_HZ
# What may come from anybody: files that hold their sound themselves.
SOUND_FORMATS = "wav,w64,mp3,ogg,flac,mov,matroska,webm,aac,aiff,au,caf"
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
        sound = _decode(container, path.name, longest_s, RATE)
    if not len(sound):
        raise MediaError(f"{path.name} holds no sound: its track is empty or cut off")
    if not np.isfinite(sound).all():
        raise MediaError(f"{path.name} holds samples that are no numbers (NaN or infinite)")
    return np.clip(sound, -1, 1)


def read_voice(data: bytes, *, longest_s: float = 60.0) -> NDArray[np.int16]:
    """Decode the first sound track of a file's content to (N,) int16 at 48 kHz, mono.

    Raises:
        MediaError: as `read_audio`; only usual sound files are read, no play lists.
    """
    name = "the sound"
    if not data:
        raise MediaError(f"{name} is empty (0 bytes)")
    with _sound_track(io.BytesIO(data), name, {"format_whitelist": SOUND_FORMATS}) as container:
        sound = _decode(container, name, longest_s, 48_000)
    if not len(sound) or not np.isfinite(sound).all():
        raise MediaError(f"{name} holds no sound: its track is empty, cut off or not of numbers")
    return np.asarray(np.clip(sound, -1, 1) * 32767, dtype=np.int16)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """A file with a sound track; what goes wrong while it is read is a `MediaError`."""
    if not path.is_file():
        raise MediaError(f"no file {path}")
    if path.stat().st_size == 0:
        raise MediaError(f"{path.name} is empty (0 bytes)")
    with _sound_track(str(path), path.name, {}) as container:
        yield container


@contextlib.contextmanager
def _sound_track(
    source: str | io.BytesIO, name: str, options: dict[str, str]
) -> Iterator[av.container.InputContainer]:
    try:
        with av.open(source, "r", options=options) as container:
            if not container.streams.audio:
                raise MediaError(f"{name} has no sound track")
            yield container
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise MediaError(f"{name} is not a sound file that can be read: {error}") from error


def _decode(
    container: av.container.InputContainer, name: str, longest_s: float, rate_hz: int
) -> NDArray[np.float32]:
    resampler = AudioResampler(format="flt", layout="mono", rate=rate_hz)
    pieces: list[NDArray[np.float32]] = []
    length, limit = 0, int(longest_s * rate_hz)
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
