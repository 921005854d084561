"""Sound files in: any format the decoder knows -> 16 kHz mono, or a plain reason why not."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from engine.config import SAMPLE_RATE_HZ
from engine.errors import MediaError

F32 = NDArray[np.float32]
RATE = SAMPLE_RATE_HZ
# What may come from anybody: files that hold their sound themselves.
SOUND_FORMATS = "wav,w64,mp3,ogg,flac,mov,matroska,webm,aac,aiff,au,caf"
LONGEST_S = 3600.0  # an hour: a bound on memory (230 MB), not on taste
SILENT = 0.001  # peak, -60 dB: less is the noise of a track nobody spoke into
# Formats whose first bytes say all: no more need be read to know them, which saves 15 ms a file.
TOLD_AT_ONCE, ENOUGH_BYTES = (b"RIFF", b"fLaC", b"OggS"), 65_536
# Of the louder channel's energy: where the mean of both has less, one undoes the other.
UNDONE = 0.1


@dataclass(frozen=True, slots=True)
class Track:
    """The sound of a file that is spoken: one of its tracks, and what of its channels."""

    index: int = 0  # among the sound tracks
    channel: int | None = None  # 0 left, 1 right; None: the mean of all


Opener = Callable[[], contextlib.AbstractContextManager[av.container.InputContainer]]


def check_sound_file(path: Path) -> float:
    """Refuse what holds no sound before anything is loaded for it; only the header is read.

    Returns:
        seconds, as the header says; 0 where it does not.

    Raises:
        MediaError: no such file, empty, no sound file, or without a sound track.
    """
    with _opened(path) as container:
        return max(0.0, (container.duration or 0) / av.time_base)


def read_audio(path: Path | str, *, longest_s: float = LONGEST_S) -> F32:
    """Decode what is spoken in `path` to (N,) float32 at 16 kHz, mono, in [-1, 1].

    That is the first track that is not silent; of channels that undo each other the louder one.

    Raises:
        MediaError: no such file, not a sound file, no sound track, damaged, empty, not finite
            or longer than `longest_s`; the message says which.
    """
    path = Path(path)
    sound = _read(functools.partial(_opened, path), path.name, longest_s, RATE)
    if not len(sound):
        raise MediaError(f"{path.name} holds no sound: its track is empty or cut off")
    if not np.isfinite(sound).all():
        raise MediaError(f"{path.name} holds samples that are no numbers (NaN or infinite)")
    return np.clip(sound, -1, 1)


def read_voice(data: bytes, *, longest_s: float = 60.0) -> NDArray[np.int16]:
    """Decode what is spoken in a file's content to (N,) int16 at 48 kHz, mono; as `read_audio`.

    Raises:
        MediaError: as `read_audio`; only usual sound files are read, no play lists.
    """
    name = "the sound"
    if not data:
        raise MediaError(f"{name} is empty (0 bytes)")

    options = {"format_whitelist": SOUND_FORMATS}
    if data.startswith(TOLD_AT_ONCE):
        options["probesize"] = str(ENOUGH_BYTES)

    def opened() -> contextlib.AbstractContextManager[av.container.InputContainer]:
        return _sound_track(io.BytesIO(data), name, options)

    sound = _read(opened, name, longest_s, 48_000)
    if not len(sound) or not np.isfinite(sound).all():
        raise MediaError(f"{name} holds no sound: its track is empty, cut off or not of numbers")
    return np.asarray(np.clip(sound, -1, 1) * 32767, dtype=np.int16)


def spoken_track(path: Path) -> int:
    """Which of the sound tracks of `path` `read_audio` reads; raises `MediaError` as it does."""
    return _find_track(functools.partial(_opened, path), path.name, LONGEST_S).index


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


def _read(opened: Opener, name: str, longest_s: float, rate_hz: int) -> F32:
    """What is spoken in a file, (N,) at `rate_hz`."""
    track = _find_track(opened, name, longest_s)
    pieces = [
        _mono(piece, track) for piece in _decode(opened, track.index, name, longest_s, rate_hz)
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _find_track(opened: Opener, name: str, longest_s: float) -> Track:
    """The first track that is not silent, or the first of all; one mono track is not looked at."""
    with opened() as container:
        channels = [stream.channels for stream in container.streams.audio]
    if channels == [1]:
        return Track()
    for index in range(len(channels)):
        peak, energy = 0.0, np.zeros(3)  # of left, right and their mean
        for piece in _decode(opened, index, name, longest_s, RATE):
            peak = max(peak, float(np.abs(piece).max(initial=0)))
            energy += np.square([piece[0], piece[-1], piece.mean(0)], dtype=np.float64).sum(1)
        if peak >= SILENT:
            undone = energy[2] < UNDONE * energy[:2].max()
            return Track(index, int(energy[:2].argmax()) if undone else None)
    return Track()


def _mono(piece: F32, track: Track) -> F32:
    """What is heard of a piece (channels, N) of a track: (N,)."""
    return np.asarray(piece.mean(0) if track.channel is None else piece[track.channel])


def _decode(opened: Opener, index: int, name: str, longest_s: float, rate_hz: int) -> Iterator[F32]:
    """A track in pieces (channels, N): left and right, or the one that there is."""
    length, limit, begun = 0, int(longest_s * rate_hz), False
    with opened() as container:
        layout = "mono" if container.streams.audio[index].channels == 1 else "stereo"
        resampler = AudioResampler(format="fltp", layout=layout, rate=rate_hz)
        for frame in container.decode(audio=index):
            frame.pts, begun = None, True  # a broken clock in the file must not stretch the sound
            for out in resampler.resample(frame):
                length += out.samples
                yield _samples(out)
            if length > limit:
                raise MediaError(f"{name} is longer than {longest_s / 60:g} minutes; cut it first")
        if begun:
            yield from (_samples(out) for out in resampler.resample(None))


def _samples(frame: av.AudioFrame) -> F32:
    return frame.to_ndarray().astype(np.float32)
