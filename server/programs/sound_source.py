"""Whatever a program has its sound in, as pieces of 48 kHz."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.audio.sound_file import LONGEST_S, read_voice
from engine.errors import MediaError
from server.sound.intake import SOUND_RATE_HZ, Pcm48
from server.sound.sound_format import Decoder, SoundFormat

Raw = bytes | bytearray | memoryview | NDArray[Any]
Source = str | Path | io.BufferedIOBase | Raw | Iterable[Raw] | AsyncIterable[Raw]
PIECE = SOUND_RATE_HZ // 5  # samples that are given at a time, at most


async def read_source(source: Source, sound: SoundFormat) -> AsyncIterator[Pcm48]:
    """Read sound as it comes, in pieces (N,) of at most 200 ms.

    Args:
        source: the path of a sound file, or an open one; raw sound as bytes, or as an array (N,) or
            (N, channels) of int16, or of floats in [-1, 1]; an iterator of raw sound, which may
            take its time (it runs on a thread), or an asynchronous one.
        sound: how raw sound is to be read; a file says so itself.

    Raises:
        MediaError: a file that cannot be read, or an array that is no sound.
    """
    if isinstance(source, str | Path | io.BufferedIOBase):
        whole = await asyncio.to_thread(_read_file, source)
        for piece in _cut(whole):
            yield piece
        return
    decoder = Decoder(sound)
    async for raw in _each(source):
        data = _as_bytes(raw, sound)
        for begin in range(0, len(data), sound.bytes_per_second):
            for piece in _cut(decoder.push(data[begin : begin + sound.bytes_per_second])):
                yield piece
    for piece in _cut(decoder.end()):
        yield piece


def _read_file(source: str | Path | io.BufferedIOBase) -> Pcm48:
    if isinstance(source, io.BufferedIOBase):
        return read_voice(source.read(), longest_s=LONGEST_S)
    path = Path(source)
    if not path.is_file():
        raise MediaError(f"no file {path}")
    return read_voice(path.read_bytes(), longest_s=LONGEST_S)


async def _each(source: Raw | Iterable[Raw] | AsyncIterable[Raw]) -> AsyncIterator[Raw]:
    if isinstance(source, bytes | bytearray | memoryview | np.ndarray):
        yield source
    elif isinstance(source, AsyncIterable):
        async for raw in source:
            yield raw
    else:
        iterator = iter(source)
        while (following := await asyncio.to_thread(next, iterator, None)) is not None:
            yield following


def _as_bytes(raw: Raw, sound: SoundFormat) -> bytes:
    """As a `Decoder` reads it; arrays are (N,) or (N, channels)."""
    if not isinstance(raw, np.ndarray):
        return bytes(raw)
    floats = np.issubdtype(raw.dtype, np.floating)
    if sound.encoding != "pcm16" or not (floats or raw.dtype == np.int16) or raw.ndim not in (1, 2):
        raise MediaError(
            f"an array of {raw.dtype} {raw.shape} as {sound.encoding} is no sound; wanted pcm16 as "
            "int16, or as floats in [-1, 1], of shape (N,) or (N, channels)"
        )
    mono = raw if raw.ndim == 1 else raw.mean(axis=1)
    if floats:
        mono = np.clip(np.nan_to_num(mono), -1, 1) * 32767
    return np.asarray(mono, dtype="<i2").tobytes()


def _cut(pcm: Pcm48) -> Iterator[Pcm48]:
    return (pcm[begin : begin + PIECE] for begin in range(0, len(pcm), PIECE))
