"""Planted offsets: `python -m engine.evaluation.expert.planted --film FILM --portraits DIR`.

Lips and sound are moved against each other by -5 to 5 frames, and the expert is asked by how many, on stretches of
5 s. With a film, whose own sound may be early or late, that offset is measured on all of it first, and taken off.
With portraits, two voices of espeak-ng that nothing was trained on speak by the phone rules on three of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from engine.config import FPS, HOP_SAMPLES, EngineConfig
from engine.errors import DataError
from engine.evaluation.expert.dataset import Talk, talk
from engine.evaluation.measures.sync import EXPERT, REACH, Sync, expert, sync_of
from engine.evaluation.spoken import UNSEEN_ESPEAK
from engine.evaluation.track import face_reader, follow
from engine.face.image_file import read_picture
from engine.face.landmarks import apply, crop_transform
from engine.motion.retarget import FaceBasis, neutral_face
from engine.nets.sync_expert import SyncExpert, lip_shapes
from engine.training.data.labeller import Labeller
from engine.training.data.talking_video import frames_at, sound_of
from engine.training.speech.espeak import Espeak
from engine.training.speech.text import sentence

F32 = NDArray[np.float32]
MOST = 5  # frames
STRETCH = 5 * FPS
SENTENCES = 4  # of a voice
FACES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """How planted offsets were found.

    Attributes:
        own: frames by which the lips are late before anything is planted; taken off.
        exact, near: shares found exactly, and within one frame.
        count: stretches times offsets.
        spread: standard deviation of what is found where nothing is planted, between frames, without those
            further off than `MOST`; None where all are.
    """

    own: float
    exact: float
    near: float
    count: int
    spread: float | None


@torch.inference_mode()
def offset_of(net: SyncExpert, spectrum: F32, shapes: F32) -> Sync:
    """What the expert says of spectra (T, 80) and shapes (T, 8)."""
    heard, seen = net(torch.from_numpy(spectrum)[None], torch.from_numpy(shapes)[None])
    return sync_of(seen[0].numpy(), heard[0].numpy(), padded=False)


def between_frames(sync: Sync) -> float:
    """The offset between whole frames: the lowest point of a parabola through the least distance."""
    best = REACH - sync.offset
    if not 0 < best < 2 * REACH:
        return float(sync.offset)
    before, least, after = sync.curve[best - 1 : best + 2]
    return sync.offset - float((before - after) / (2 * (before - 2 * least + after)))


def planted(net: SyncExpert, talks: Sequence[Talk], own: float = 0.0) -> Found:
    """Plant offsets in every stretch of talks that begin together."""
    said, still = [], []
    for one in talks:
        for first in range(MOST, len(one.shapes) - STRETCH - MOST + 1, FPS):
            spectrum = one.spectrum[first : first + STRETCH]
            for late in range(-MOST, MOST + 1):
                shapes = one.shapes[first - late : first - late + STRETCH]
                found = offset_of(net, spectrum, shapes)
                said.append(found.offset - late)
                if not late:
                    still.append(between_frames(found))
    away = np.abs(said)
    near = [v for v in still if abs(v) <= MOST]
    spread = float(np.std(near)) if near else None
    return Found(own, float((away == 0).mean()), float((away <= 1).mean()), len(said), spread)


def of_film(net: SyncExpert, pcm: F32, landmarks: F32) -> Found:
    """Plant offsets in a film: its sound (N,) at 16 kHz, and landmarks (T, 478, 2)."""
    count = min(len(landmarks), len(pcm) // HOP_SAMPLES)
    shapes = lip_shapes(landmarks[:count])

    def heard(sound: F32) -> F32:
        with torch.inference_mode():
            told = net.spectrum(torch.from_numpy(sound[None, : count * HOP_SAMPLES]))
        return np.asarray(told[0].numpy())

    own = between_frames(offset_of(net, heard(pcm), shapes))
    moved = np.roll(pcm, round(own * HOP_SAMPLES))
    edge = int(np.ceil(abs(own)))  # where the roll has put what is not of there
    return planted(
        net, [Talk("film", heard(moved)[edge : -edge or None], shapes[edge : -edge or None])], own
    )


def unseen(net: SyncExpert, portraits: Sequence[Path]) -> list[Talk]:
    """Voices that no network was trained on, on faces that none was trained on."""
    basis = FaceBasis.load(EngineConfig().weights / "basis.npz")
    espeak, rng = Espeak(), random.Random(9)
    talks = []
    for number, path in enumerate(portraits[:FACES]):
        face = face_reader().read(read_picture(path.read_bytes(), None).rgb).face
        neutral = neutral_face(
            apply(crop_transform(face.landmarks), face.landmarks), face.scores, basis
        )
        voice = UNSEEN_ESPEAK[number % len(UNSEEN_ESPEAK)]
        pcm, phones = espeak.speak(voice, " ".join(sentence(rng) for _ in range(SENTENCES)))
        talks.append(talk(voice, pcm, phones, neutral, basis, net))
    return talks


def main(
    film: Annotated[Path | None, typer.Option(help="film of somebody who speaks")] = None,
    landmarker: Annotated[
        Path | None, typer.Option(help="face_landmarker.task: reads the film in place of our net")
    ] = None,
    portraits: Annotated[Path | None, typer.Option(help="folder of portraits")] = None,
    weights: Annotated[Path, typer.Option(help="sync_expert.safetensors")] = EXPERT,
) -> None:
    """Print how many planted offsets are found, one line of JSON each."""
    torch.set_num_threads(1)
    net = expert(weights)
    if film is not None:
        label = Labeller(landmarker) if landmarker is not None else None
        track = follow(frames_at(film), label=label)
        by = "own net" if label is None else "public landmarker"
        sound = sound_of(film, len(track.landmarks))
        if sound is None:
            raise DataError(f"{film.name} has no sound")
        found = of_film(net, sound, track.landmarks)
        typer.echo(json.dumps({"on": film.name, "read by": by, **asdict(found)}))
    if portraits is not None:
        faces = sorted(portraits.glob("*.jpg"))
        typer.echo(json.dumps({"on": "unseen voices", **asdict(planted(net, unseen(net, faces)))}))


if __name__ == "__main__":
    typer.run(main)
