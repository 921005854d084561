"""What is read of the pictures of a video, once, whatever it is held against later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.kept import Shelf
from engine.evaluation.measures.clip import Clip
from engine.evaluation.measures.costs import Meter
from engine.evaluation.measures.identity import embeddings
from engine.evaluation.measures.inception import inception_features
from engine.evaluation.measures.latents import latent_statistics
from engine.evaluation.measures.perceptual import lpips_to_next
from engine.evaluation.measures.settings import Settings
from engine.evaluation.measures.steadiness import face_colours, flicker
from engine.evaluation.track import FaceTrack, follow

Arrays = NDArray[Any]
TRACK = tuple(field.name for field in fields(FaceTrack))


@dataclass(frozen=True)
class Reading:
    """Numbers of a video of T frames.

    Attributes:
        faces: (T, 128) of `embeddings`.
        inception: (T, 2048).
        to_next: (T - 1,) LPIPS (AlexNet) of each frame and the one after it.
        jumps: (T - 2,) of `flicker`.
        colours: (T, 3) mean Lab of the face.
        latents: (T, 2, 16) mean and spread of each channel of the codec's latents.
    """

    track: FaceTrack
    faces: Arrays
    inception: Arrays
    to_next: Arrays
    jumps: Arrays
    colours: Arrays
    latents: Arrays

    def part(self, first: int, last: int | None = None) -> Reading:
        """Frames `first` to before `last`."""
        stop = len(self.faces) if last is None else last
        return Reading(
            self.track.part(first, stop),
            self.faces[first:stop],
            self.inception[first:stop],
            self.to_next[first : max(stop - 1, first)],
            self.jumps[first : max(stop - 2, first)],
            self.colours[first:stop],
            self.latents[first:stop],
        )


def changed(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of frames (T, H, W, 3) is not the same picture as the one before it: (T,)."""
    return np.array(
        [not t or not np.array_equal(frames[t], frames[t - 1]) for t in range(len(frames))]
    )


def spread_out(steps: Arrays, new: NDArray[np.bool_]) -> Arrays:
    """Distances from each new frame to the next one as those of all T frames (T - 1,): else 0."""
    found = np.zeros(len(new) - 1)
    found[new[1:]] = steps
    return found


def read_pictures(clip: Clip, settings: Settings, shelf: Shelf, meter: Meter) -> Reading:
    """Read all pictures of a clip, unless that was done: then `meter` is told what it had cost.

    Raises:
        DataError: no face in any frame.
    """
    if (saved := shelf.take("pictures", clip.key)) is not None:
        for name, cost in saved.told["costs"].items():
            meter.add(name, cost)
        arrays = dict(saved.arrays)
        of_track: dict[str, Any] = {name: arrays.pop(name) for name in TRACK if name in arrays}
        return Reading(FaceTrack(**of_track, rivals=saved.told["rivals"]), **arrays)
    own = Meter()
    with own.of("Face track: landmarks, lips, head, blinks"):
        track = follow(clip.frames)
    frames, store = clip.frames, settings.store
    new = changed(frames)
    # A picture that stands still is not looked at again.
    shown, at = frames if new.all() else frames[new], np.cumsum(new) - 1
    measures: dict[str, tuple[str, Callable[[], Arrays]]] = {
        "faces": ("CSIM", lambda: embeddings(shown, track.landmarks[new], store)[at]),
        "inception": ("FID, KID", lambda: inception_features(shown, store)[at]),
        "to_next": ("tLPIPS", lambda: spread_out(lpips_to_next(shown, store), new)),
        "jumps": ("Flicker", partial(flicker, frames)),
        "colours": ("Colour drift", partial(face_colours, frames, track)),
        "latents": ("Latent drift", partial(latent_statistics, frames, track)),
    }
    arrays = {}
    for part, (name, measure) in measures.items():
        with own.of(name):
            arrays[part] = measure()
    for name, cost in own.costs.items():
        meter.add(name, cost)
    kept = {name: np.asarray(getattr(track, name)) for name in TRACK if name != "rivals"}
    told = {"rivals": int(track.rivals), "costs": own.costs}
    shelf.put(told, {**kept, **arrays}, "pictures", clip.key)
    return Reading(track, **arrays)
