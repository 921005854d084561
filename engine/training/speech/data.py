"""Makes the synthetic speech the speech encoder learns from: `python -m engine.training.speech.data --help`.

One `<voice>_NNNN.npz` holds 20 sentences: `pcm` (int16, 16 kHz, all in a row), `pcm_end` (where
each ends), `phone` (index), `start`, `end` (s), `phone_end`. Finished files are skipped, so a
stopped run goes on where it was; a file's content depends on its name and the seed alone.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine.errors import DataError
from engine.loaders.packages import fetch
from engine.outputs import own_folder
from engine.training.speech.espeak import Espeak
from engine.training.speech.flite import Flite
from engine.training.speech.neural_voices import Kokoro, Piper
from engine.training.speech.phones import INDEX, Phone
from engine.training.speech.voice import RATE, Voice

F32 = NDArray[np.float32]
SENTENCES = 20  # in one file
MINUTES = {"espeak": 20.0, "flite": 45.0, "piper": 45.0, "kokoro": 15.0}


@dataclass(frozen=True, slots=True)
class Utterance:
    """A spoken sentence and its phones; `name` says which file it is from."""

    name: str
    pcm: F32  # (N,) 16 kHz
    phones: tuple[Phone, ...]


def make_voice(name: str, cache: Path) -> Voice:
    """Load the voice called `name`; downloads its model into `cache` once."""
    if name == "espeak":
        return Espeak()
    if name == "flite":
        return Flite()
    if name == "piper":
        models = [p for p in fetch("piper", cache) if p.suffix == ".onnx"]
        return Piper(models[0], Espeak())
    if name == "kokoro":
        return Kokoro(fetch("kokoro", cache)[0], fetch("kokoro-voices", cache), Espeak())
    raise DataError(f"no voice {name!r}; known: {', '.join(MINUTES)}")


def write_shard(path: Path, voice: Voice, seed: str) -> float:
    """Speak `SENTENCES` sentences into `path`; returns their length in seconds."""
    rng = random.Random(seed)
    said = [voice.say(rng) for _ in range(SENTENCES)]
    phones = [p for _, row in said for p in row]
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        pcm=np.concatenate([np.clip(s * 32767, -32768, 32767).astype(np.int16) for s, _ in said]),
        pcm_end=np.cumsum([len(s) for s, _ in said]),
        phone=np.array([INDEX[p.name] for p in phones], np.int8),
        start=np.array([p.start for p in phones], np.float32),
        end=np.array([p.end for p in phones], np.float32),
        phone_end=np.cumsum([len(row) for _, row in said]),
    )
    part.rename(path)
    return sum(len(s) for s, _ in said) / RATE


def read_shard(path: Path) -> Iterator[Utterance]:
    """Yield the sentences of one file.

    Raises:
        DataError: the file is damaged.
    """
    names = list(INDEX)
    try:
        with np.load(path) as file:
            data = {key: file[key] for key in file.files}
        pcm = np.split(data["pcm"], data["pcm_end"][:-1])
        rows = np.split(np.arange(len(data["phone"])), data["phone_end"][:-1])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not a speech file; delete it and make it again") from error
    for i, (sound, row) in enumerate(zip(pcm, rows, strict=True)):
        phones = tuple(
            Phone(names[data["phone"][j]], float(data["start"][j]), float(data["end"][j]))
            for j in row
        )
        yield Utterance(f"{path.stem}/{i}", (sound / 32768).astype(np.float32), phones)


def generate(out: Path, voice_name: str, minutes: float, *, cache: Path, seed: int = 0) -> None:
    """Write files of one voice until there are `minutes` of it."""
    own_folder(out, earlier=any(out.glob(f"{voice_name}_[0-9][0-9][0-9][0-9].npz")))
    voice = make_voice(voice_name, cache)
    with tqdm(total=round(minutes, 1), desc=voice_name, unit="min") as bar:
        number, done = 0, 0.0
        while done < minutes:
            path = out / f"{voice_name}_{number:04d}.npz"
            if path.exists():
                with np.load(path) as file:
                    seconds = float(file["pcm_end"][-1]) / RATE
            else:
                seconds = write_shard(path, voice, f"{seed} {path.stem}")
            done += seconds / 60
            number += 1
            bar.update(round(seconds / 60, 2))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the sound files")
    parser.add_argument("--cache", type=Path, required=True, help="folder of downloaded packages")
    parser.add_argument("--voices", nargs="+", default=list(MINUTES), choices=list(MINUTES))
    parser.add_argument("--minutes", type=float, help="minutes a voice (default: by voice)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.voices:
        generate(args.out, name, args.minutes or MINUTES[name], cache=args.cache, seed=args.seed)


if __name__ == "__main__":
    main()
