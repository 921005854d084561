"""Clips of a set made ready: a stretch of film and sound that begin together, at 25 frames and 16 kHz."""

from __future__ import annotations

import hashlib
import math
import wave
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from engine.audio.sound_file import read_audio
from engine.config import FPS, HOP_SAMPLES, SAMPLE_RATE_HZ
from engine.errors import DataError, MediaError
from engine.evaluation.lossless import to_pcm16, write_lossless
from engine.evaluation.sets import EvaluationClip
from engine.face.image_file import read_picture
from engine.training.data.talking_video import frames_at, sound_of
from engine.types import Pcm, RgbImage

LONGEST_S = 60.0  # all frames of a clip are measured at once, in memory


@dataclass(frozen=True, slots=True)
class Prepared:
    """A clip whose parts fit each other. `key` changes with what is in it."""

    name: str
    key: str
    real: Path | None  # .mkv without loss
    sound: Path  # .wav, 16 kHz
    pcm: Pcm  # (N,) of it
    portrait: RgbImage  # (H, W, 3), both even; the film's first frame where the set names none
    notes: tuple[str, ...] = ()


def prepare(clip: EvaluationClip, folder: Path) -> Prepared:
    """Cut a clip into `folder` / its key, unless it is there.

    Raises:
        DataError: it has no sound, it is shorter than a second, or a file cannot be read.
    """
    key = clip_key(clip)
    place = folder / f"{clip.name}-{key[:12]}"
    notes: list[str] = []
    try:
        pcm, frames = _read(clip, notes)
        if len(pcm) < SAMPLE_RATE_HZ:
            raise DataError(
                f"{clip.name}: only {len(pcm) / SAMPLE_RATE_HZ:.2f} s; a second is least"
            )
        portrait = _even(frames[0] if clip.portrait is None else _portrait(clip.portrait, notes))
    except MediaError as error:
        raise DataError(f"{clip.name}: {error}") from error
    place.mkdir(parents=True, exist_ok=True)
    real = place / "real.mkv" if frames else None
    if real is not None and not real.is_file():
        write_lossless((_even(rgb) for rgb in frames), pcm, real)
    write_wav(place / "sound.wav", pcm)
    return Prepared(clip.name, key, real, place / "sound.wav", pcm, portrait, tuple(notes))


def _read(clip: EvaluationClip, notes: list[str]) -> tuple[Pcm, list[RgbImage]]:
    """Sound (N,) and frames (H, W, 3) of the stretch, of one length; no frames without a film."""
    first = round(clip.start_s * FPS)
    asked = LONGEST_S if clip.seconds is None else min(clip.seconds, LONGEST_S)
    wanted = round(asked * FPS)
    frames: list[RgbImage] = []
    late = round(clip.sound_late_s * SAMPLE_RATE_HZ)
    if clip.real is not None:
        frames = list(islice(frames_at(clip.real), first, first + wanted))
        if not frames:
            raise DataError(f"{clip.name}: {clip.real.name} ends before {clip.start_s:g} s")
        heard = first + len(frames) + max(0, math.ceil(late / HOP_SAMPLES))
        sound = sound_of(clip.real, heard, clip.audio)
        if sound is None:
            raise DataError(f"{clip.name}: {clip.real.name} has no sound, and the set names none")
    else:
        assert clip.audio is not None  # `EvaluationClip` sees to it
        sound = read_audio(clip.audio)
    if late:
        sound = sound[late:] if late > 0 else np.pad(sound, (-late, 0))
        notes.append(f"the film's sound is {clip.sound_late_s:g} s late: moved by that")
    begin = first * HOP_SAMPLES
    pcm = sound[begin : begin + wanted * HOP_SAMPLES]
    if clip.seconds is None and len(sound) - begin > len(pcm):
        notes.append(f"only the first {LONGEST_S:.0f} s are evaluated")
    count = len(pcm) // HOP_SAMPLES
    if frames and count < len(frames):
        notes.append(f"the film is {len(frames) - count} frames longer than its sound: cut")
        frames = frames[:count]
    count = len(frames) or count
    return np.ascontiguousarray(pcm[: count * HOP_SAMPLES], np.float32), frames


def clip_key(clip: EvaluationClip) -> str:
    """SHA-256 of what a clip's files hold and of the stretch; of no path."""
    digest = hashlib.sha256(f"{clip.start_s} {clip.seconds} {clip.sound_late_s}".encode())
    for path in (clip.real, clip.portrait, clip.audio):
        digest.update(b"none" if path is None else file_key(path).encode())
    return digest.hexdigest()


def file_key(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_wav(path: Path, pcm: Pcm) -> None:
    """Write sound (N,) as 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(to_pcm16(pcm).tobytes())


def rolled(pcm: Pcm) -> Pcm:
    """Sound (N,) moved by half of its length, its end before its beginning."""
    return np.roll(pcm, len(pcm) // 2 // HOP_SAMPLES * HOP_SAMPLES)


def _portrait(path: Path, notes: list[str]) -> RgbImage:
    picture = read_picture(path.read_bytes(), None)
    notes += picture.notices
    return picture.rgb


def _even(rgb: RgbImage) -> RgbImage:
    height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    return np.ascontiguousarray(rgb[:height, :width])
