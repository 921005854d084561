"""CSIM is the cosine of face-recognition embeddings (SFace) of a video's frames and of the portrait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import DataError
from engine.evaluation.identity import IdentityScore
from engine.evaluation.track import face_reader

F32 = NDArray[np.float32]


@cache
def _score(store: Path) -> IdentityScore:
    return IdentityScore(store)


def embeddings(frames: NDArray[np.uint8], landmarks: F32, store: Path) -> F32:
    """Unit embedding (T, 128) of the face with `landmarks` (T, 478, 2) in each of frames (T, H, W, 3)."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return np.stack(list(threads.map(_score(store).embed, frames, landmarks)))


def of_portrait(portrait: NDArray[np.uint8], store: Path) -> F32:
    """Unit embedding (128,) of the face in `portrait` (H, W, 3).

    Raises:
        DataError: no face in the portrait.
    """
    faces = face_reader().faces(portrait)
    if not faces:
        raise DataError("no face in the portrait")
    return _score(store).embed(portrait, faces[0].landmarks)
