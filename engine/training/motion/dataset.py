"""Sound with mouth channels: the animated Mandarin recordings, and synthetic speech by rule."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine.audio.sound_file import read_audio
from engine.errors import DataError
from engine.motion.channels import CHANNELS
from engine.training.motion.rules import mouth
from engine.training.speech.data import Utterance, read_shard
from engine.training.speech.phones import INDEX, Phone
from engine.training.speech.teacher import FRAME_HZ, Moonshine
from engine.training.speech.voice import RATE

F32 = NDArray[np.float32]
HELD_OUT = ("2_04", "3_16")
SOURCE_FPS = 30

# Animators' columns -> our channels; a column without a side stands for itself.
MAPPING: dict[str, dict[str, float]] = {
    "jawOpen": {"mouth_stretch_c": 0.9},
    "mouthFunnel": {"mouth_funnel_dl": 0.25, "mouth_funnel_dr": 0.25, "mouth_funnel_ul": 0.25}
    | {"mouth_funnel_ur": 0.25, "mouth_oh_c": 0.5},
    "mouthPucker": {"mouth_pucker_l": 0.5, "mouth_pucker_r": 0.5, "mouth_oo_c": 0.6},
    "mouthSmile": {"mouth_lipCornerPull_l": 0.5, "mouth_lipCornerPull_r": 0.5},
    "mouthStretch": {"mouth_lipStretch_l": 0.5, "mouth_lipStretch_r": 0.5},
    "mouthRollLower": {"mouth_suck_dl": 0.5, "mouth_suck_dr": 0.5},
    "mouthRollUpper": {"mouth_suck_ul": 0.5, "mouth_suck_ur": 0.5},
    "mouthPress": {"mouth_press_l": 0.5, "mouth_press_r": 0.5},
    "mouthLowerDown": {"mouth_lowerLipDepress_l": 0.5, "mouth_lowerLipDepress_r": 0.5},
    "mouthUpperUp": {"mouth_upperLipRaise_l": 0.5, "mouth_upperLipRaise_r": 0.5},
}


@dataclass(slots=True)
class Clip:
    """A sound with everything known of it, at 50 frames a second (T = len(pcm) // 320)."""

    name: str
    pcm: F32  # (N,)
    phone: NDArray[np.int8]  # (T,); -1 where nobody knows
    mouth: F32  # (T, channels)
    columns: F32  # (T, 28) the animators' own weights, or (0, 28)
    teacher: F32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # (T, width)

    @property
    def real(self) -> bool:
        """Recorded and animated by people."""
        return len(self.columns) > 0


def load_animated(folder: Path) -> tuple[list[Clip], list[str]]:
    """Read the Mandarin recordings and their animators' weights; returns clips and column names.

    Raises:
        DataError: the folder lacks `weights.npz` or a sound.
    """
    path = folder / "weights.npz"
    if not path.exists():
        raise DataError(f"no {path}; --animated must name the folder of the animated recordings")
    clips = []
    with np.load(path, allow_pickle=False) as file:
        names = [str(n) for n in file["names"]]
        for key in (k for k in file.files if k != "names"):
            pcm = read_audio(folder / f"{key}.flac")
            weights = file[key].astype(np.float32)
            frames = min(len(pcm) // 320, len(weights) * FRAME_HZ // SOURCE_FPS)
            columns = _resample(weights, frames)
            mouths = map_columns(columns, names)
            unknown = np.full(frames, -1, np.int8)
            clips.append(Clip(key, pcm[: frames * 320], unknown, mouths, columns))
    return clips, names


def _resample(weights: F32, frames: int) -> F32:
    """30 a second -> 50 a second; a source frame stands for the middle of its time."""
    when = (np.arange(frames) + 0.5) / FRAME_HZ * SOURCE_FPS - 0.5
    grid = np.arange(len(weights))
    return np.stack([np.interp(when, grid, c) for c in weights.T], 1).astype(np.float32)


def map_columns(columns: F32, names: Sequence[str]) -> F32:
    """Animators' weights (T, 28) -> our channels (T, channels)."""
    matrix = np.zeros((len(names), len(CHANNELS)), np.float32)
    for channel, parts in MAPPING.items():
        for column, share in parts.items():
            matrix[names.index(column), CHANNELS.index(channel)] = share
    return np.clip(columns @ matrix, 0, 1)


def frame_phones(phones: Sequence[Phone], frames: int) -> NDArray[np.int8]:
    """Index of the phone spoken in the middle of each 20 ms frame, (frames,)."""
    out = np.zeros(frames, np.int8)
    for p in phones:
        first, last = (int(np.ceil(x * FRAME_HZ - 0.5)) for x in (p.start, p.end))
        out[max(first, 0) : max(last, 0)] = INDEX[p.name]
    return out


def from_utterance(said: Utterance) -> Clip:
    """Synthetic speech with its mouth by rule."""
    frames = len(said.pcm) // 320
    pcm = said.pcm[: frames * 320]
    none = np.zeros((0, 28), np.float32)
    return Clip(
        said.name, pcm, frame_phones(said.phones, frames), mouth(said.phones, pcm)[:frames], none
    )


def load_synthetic(folder: Path) -> Iterator[Clip]:
    """All synthetic sentences of `folder`."""
    for path in sorted(folder.glob("*_[0-9][0-9][0-9][0-9].npz")):
        for said in read_shard(path):
            yield from_utterance(said)


def load_talks(folder: Path, seed: int = 0, sentences: int = 5) -> Iterator[Clip]:
    """The synthetic sentences of `folder`, some at a time, with pauses between them."""
    for path in sorted(folder.glob("*_[0-9][0-9][0-9][0-9].npz")):
        rng = np.random.RandomState([seed, zlib.crc32(path.stem.encode())])
        said = list(read_shard(path))
        for i in range(0, len(said), sentences):
            yield from_utterance(_talk(said[i : i + sentences], rng))


def _talk(said: Sequence[Utterance], rng: np.random.RandomState) -> Utterance:
    """Sentences one after another, 0.1 to 1.5 s apart."""
    pieces: list[F32] = []
    phones: list[Phone] = []
    length = 0
    for one in said:
        pause = int(RATE * np.exp(rng.uniform(np.log(0.1), np.log(1.5))))
        at, end = length / RATE, (length + len(one.pcm)) / RATE
        phones += [Phone(p.name, at + p.start, at + p.end) for p in one.phones]
        phones.append(Phone("sil", end, end + pause / RATE))
        pieces += [one.pcm, np.zeros(pause, np.float32)]
        length += len(one.pcm) + pause
    return Utterance(said[0].name, np.concatenate(pieces), tuple(phones))


def add_teacher(clips: Sequence[Clip], cache: Path, store: Path) -> None:
    """Fill `teacher` of every clip, through a file a clip group in `store` (resumable)."""
    store.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.name.split("/")[0], []).append(clip)
    model: Moonshine | None = None
    for name, members in tqdm(groups.items(), desc="teacher", unit="file"):
        path = store / f"{name}.npz"
        if not path.exists():
            model = model or Moonshine(cache)
            np.savez(path, *[model(clip.pcm).astype(np.float16) for clip in members])
        with np.load(path) as file:
            for i, clip in enumerate(members):
                clip.teacher = file[f"arr_{i}"].astype(np.float32)
