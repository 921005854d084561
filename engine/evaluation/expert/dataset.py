"""Talks of a voice and a face for the audio-lip expert: log-mel spectra and what the lips do meanwhile.

No film of enough people may be used here, so the lips are those of the phone rules, on faces of SFHQ-T2I that
no network of the project was trained on. What people and landmark nets add: `roughening`.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.audio.sound_file import read_audio
from engine.config import FPS
from engine.errors import DataError, PortraitRefused
from engine.evaluation.alignment import Aligner, read_transcripts
from engine.face.detector import FaceReader
from engine.face.landmarks import apply, crop_transform
from engine.motion.channels import spread_matrix
from engine.motion.retarget import FaceBasis, neutral_face, retarget
from engine.nets.sync_expert import SyncExpert, lip_shapes
from engine.training.face.dataset import HELD_OUT_EVERY
from engine.training.motion.rules import mouth
from engine.training.speech.data import read_shard
from engine.training.speech.espeak import Espeak
from engine.training.speech.phones import Phone
from engine.training.speech.voice import RATE

F32 = NDArray[np.float32]
HOP = RATE // FPS
STILL = np.zeros(6, np.float32)
SENTENCES = 4  # of a talk
FACES_EACH = 2  # that say a recording


@dataclass(frozen=True, slots=True)
class Talk:
    """T frames of one voice on one face."""

    name: str
    spectrum: F32  # (T, 80)
    shapes: F32  # (T, 8)


def unseen_faces(stills: Path, reader: FaceReader, basis: FaceBasis) -> list[F32]:
    """Neutral faces (478, 2) in crop units of the figures that the face networks were not trained on.

    Raises:
        DataError: none could be read.
    """
    faces = []
    with tarfile.open(stills) as archive:
        members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
        for member in members[::HELD_OUT_EVERY]:
            file = archive.extractfile(member)
            assert file is not None  # only plain files are asked for
            rgb = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
            try:
                face = reader.read(rgb).face
            except PortraitRefused:
                continue
            placed = apply(crop_transform(face.landmarks), face.landmarks)
            faces.append(neutral_face(placed, face.scores, basis))
    if not faces:
        raise DataError(f"no face could be read in {stills}")
    return faces


def lips_of(phones: Sequence[Phone], pcm: F32, face: F32, basis: FaceBasis) -> F32:
    """Shapes (T, 8) of the lips of a neutral face (478, 2) that says `phones`, by rule."""
    coefficients = mouth(phones, pcm, FPS) @ spread_matrix()
    return lip_shapes(np.stack([retarget(face, basis, c, STILL) for c in coefficients]))


def talks(
    folder: Path, faces: Sequence[F32], basis: FaceBasis, net: SyncExpert, seed: int = 0
) -> Iterator[Talk]:
    """The sentences of `folder`, four at a time with pauses between, each on one of `faces` (478, 2).

    Raises:
        DataError: the folder holds no speech.
    """
    paths = sorted(folder.glob("*_[0-9][0-9][0-9][0-9].npz"))
    if not paths:
        raise DataError(f"no speech in {folder}")
    rng = np.random.RandomState(seed)
    for path in paths:
        said = list(read_shard(path))
        for first in range(0, len(said), SENTENCES):
            pieces: list[F32] = []
            phones: list[Phone] = []
            for one in said[first : first + SENTENCES]:
                at = sum(map(len, pieces)) / RATE
                phones += [Phone(p.name, at + p.start, at + p.end) for p in one.phones]
                pause = np.zeros(int(RATE * rng.uniform(0.05, 0.8)), np.float32)
                end = at + len(one.pcm) / RATE
                phones.append(Phone("sil", end, end + len(pause) / RATE))
                pieces += [one.pcm, pause]
            yield talk(
                f"{path.stem}/{first}", np.concatenate(pieces), phones,
                faces[rng.randint(len(faces))], basis, net,
            )  # fmt: skip


def recorded_talks(
    folder: Path, faces: Sequence[F32], basis: FaceBasis, net: SyncExpert, seed: int = 1
) -> Iterator[Talk]:
    """The recordings of an LJSpeech folder, their phones by forced alignment, each on two faces (478, 2)."""
    rng = np.random.RandomState(seed)
    aligner = Aligner(Espeak().ipa)
    for name, words in read_transcripts(folder).items():
        pcm = read_audio(folder / f"{name}.flac")
        phones = aligner.align(pcm, words)
        for _ in range(FACES_EACH):
            face = faces[rng.randint(len(faces))]
            yield talk(f"recorded_{name}", pcm, phones, face, basis, net)


def talk(
    name: str, pcm: F32, phones: Sequence[Phone], face: F32, basis: FaceBasis, net: SyncExpert
) -> Talk:
    """One talk: the sound `pcm` (N,) at 16 kHz, and a neutral face (478, 2) that says it."""
    shapes = lips_of(phones, pcm, face, basis)
    frames = min(len(shapes), len(pcm) // HOP)
    with torch.inference_mode():
        spectrum = net.spectrum(torch.from_numpy(pcm[None, : frames * HOP].astype(np.float32)))
    return Talk(name, spectrum[0].numpy(), shapes[:frames])
