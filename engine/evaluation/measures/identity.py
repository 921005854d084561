"""CSIM: the cosine of face-recognition embeddings (SFace) of a video's frames and of the portrait."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import DataError
from engine.evaluation.identity import IdentityScore
from engine.evaluation.measures.track import FaceTrack, face_reader


@cache
def _score(store: Path) -> IdentityScore:
    return IdentityScore(store)


def csim(
    frames: NDArray[np.uint8], track: FaceTrack, portrait: NDArray[np.uint8], store: Path
) -> NDArray[np.float64]:
    """Cosine (T,) of each of frames (T, H, W, 3) with `portrait` (H, W, 3).

    Raises:
        DataError: no face in the portrait.
    """
    faces = face_reader().faces(portrait)
    if not faces:
        raise DataError("no face in the portrait")
    score = _score(store)
    wanted = score.embed(portrait, faces[0].landmarks)
    found = [
        float(score.embed(rgb, points) @ wanted)
        for rgb, points in zip(frames, track.landmarks, strict=True)
    ]
    return np.array(found)
