"""Prepared clips on disk: one folder a clip, written whole or not at all.

| file | holds |
| --- | --- |
| `clip.json` | who, which video, which frames of it, split, words, what made it |
| `frames.bin` | one JPEG after another |
| `clip.npz` | `offsets` (T + 1,), `landmarks` (T, 478, 2) in [0, 1], `yaw_pitch` (T, 2), `scores` (T, 52), `confidence` (T,) |
| `identity.npz` | `frames` (K,) and `embeddings` (K, D) of the frames that may stand as reference |
| `sound.npy` | (T * 640,) int16 at 16 kHz; absent when the video is silent |
| `speech.npy` | (2 T, W) float16, features of that sound at 50 Hz |
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.config import from_mapping
from engine.errors import ConfigError, DataError
from engine.types import Pcm, RgbImage

F32 = NDArray[np.float32]
QUALITY = 95  # of the JPEGs, colour at full resolution
VERSION = 1
PROMPT = "portrait of a person, looking at the camera"  # what the live engine says as well
Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCard:
    """What `clip.json` says."""

    version: int = VERSION
    video: str  # path of the video inside the prepared folder
    person: str
    split: Split = "train"
    prompt: str = PROMPT
    first_frame: int = 0  # of the video at 25 fps
    frames: int = 0
    size: int = 0  # pixels a side
    crop: tuple[float, float, float] = (0.0, 0.0, 0.0)  # centre x, y, side in the video's pixels
    face_encoder: str = "tiny"
    landmarks: str = "bundled"  # whose: our landmark net's, or "mediapipe"


@dataclass(frozen=True, slots=True)
class ClipArrays:
    """The numbers of a clip, as written."""

    landmarks: F32  # (T, 478, 2) in [0, 1] of the crop
    yaw_pitch: F32  # (T, 2)
    scores: F32  # (T, 52)
    confidence: F32  # (T,)
    reference_frames: NDArray[np.int64]  # (K,)
    embeddings: F32  # (K, D)
    sound: Pcm | None
    speech: F32 | None  # (2 T, W)


def write_clip(folder: Path, card: ClipCard, arrays: ClipArrays, frames: Iterable[RgbImage]) -> int:
    """Write a clip beside `folder` and move it into place; returns its size in bytes.

    A process killed in the middle leaves only a folder ending in `.part`, which the next run
    removes.

    Raises:
        DataError: `frames` (size, size, 3) are more or fewer than the card says.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    offsets = [0]
    with (part / "frames.bin").open("wb") as file:
        for rgb in frames:
            file.write(_jpeg(rgb))
            offsets.append(file.tell())
    if len(offsets) - 1 != card.frames:
        raise DataError(f"{folder.name}: {len(offsets) - 1} frames came, {card.frames} expected")
    np.savez(
        part / "clip.npz",
        offsets=np.array(offsets, np.int64),
        landmarks=arrays.landmarks,
        yaw_pitch=arrays.yaw_pitch,
        scores=arrays.scores.astype(np.float16),
        confidence=arrays.confidence,
    )
    np.savez(part / "identity.npz", frames=arrays.reference_frames, embeddings=arrays.embeddings)
    if arrays.sound is not None:
        np.save(part / "sound.npy", (np.clip(arrays.sound, -1, 1) * 32767).astype(np.int16))
    if arrays.speech is not None:
        np.save(part / "speech.npy", arrays.speech.astype(np.float16))
    (part / "clip.json").write_text(json.dumps(asdict(card), indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return sum(f.stat().st_size for f in folder.iterdir())


def _jpeg(rgb: RgbImage) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


class Clip:
    """One prepared clip: its numbers in memory, its frames read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            raw: dict[str, Any] = json.loads((folder / "clip.json").read_text())
            raw["crop"] = tuple(raw["crop"])
            self.card = from_mapping(ClipCard, raw)
            with np.load(folder / "clip.npz") as saved:
                self.offsets: NDArray[np.int64] = saved["offsets"]
                self.landmarks: F32 = saved["landmarks"]
                self.yaw_pitch: F32 = saved["yaw_pitch"]
            with np.load(folder / "identity.npz") as saved:
                self.reference_frames: NDArray[np.int64] = saved["frames"]
                self.embeddings: F32 = saved["embeddings"]
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise DataError(
                f"{folder} is no prepared clip: {error}; remove the folder and prepare it again"
            ) from error
        if self.card.version != VERSION:
            raise DataError(
                f"{folder} was prepared as version {self.card.version}, this is {VERSION}; "
                "prepare the videos again"
            )

    def __len__(self) -> int:
        return self.card.frames

    def frame(self, index: int) -> RgbImage:
        """Frame `index` (size, size, 3)."""
        begin, end = (int(v) for v in self.offsets[index : index + 2])
        with (self.folder / "frames.bin").open("rb") as file:
            file.seek(begin)
            try:
                return np.asarray(Image.open(io.BytesIO(file.read(end - begin))).convert("RGB"))
            except OSError as error:
                raise DataError(f"{self.folder}: frame {index} is damaged: {error}") from error

    def sound(self) -> Pcm | None:
        """(T * 640,) at 16 kHz, or None for a silent video."""
        path = self.folder / "sound.npy"
        return np.load(path).astype(np.float32) / 32767 if path.exists() else None

    def speech(self) -> F32 | None:
        """Speech features (2 T, W) at 50 Hz, or None for a silent video."""
        path = self.folder / "speech.npy"
        return np.load(path).astype(np.float32) if path.exists() else None


def load_clips(folder: Path, split: Split | None = None) -> list[Clip]:
    """Every finished clip under `folder`, in the order of their names.

    Raises:
        DataError: there is none.
    """
    found = sorted(p.parent for p in folder.glob("clips/*/clip.json") if _finished(p.parent))
    clips = [clip for path in found if split in (None, (clip := Clip(path)).card.split)]
    if not clips:
        which = f"{split} clips" if split else "clips"
        raise DataError(
            f"no prepared {which} under {folder}; run `portraittalk prepare` on your videos first"
        )
    return clips


def _finished(folder: Path) -> bool:
    return not folder.name.endswith(".part")
