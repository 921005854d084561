"""Samples people who were never trained on, and measures the frames against those that were drawn.

Pose-given: landmarks and placement are the drawing's, frames come one after another through the frame cache
from the same noise. The face reader of `portraittalk evaluate` finds most drawn faces; the lips have a closed
form beside it, since the drawing knows how wide they are open.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import l1_loss

from engine.errors import DataError
from engine.evaluation.adfd import adfd
from engine.evaluation.measures.inception import fid, inception_features, kid
from engine.evaluation.measures.landmarks import SIDE, landmark_distances
from engine.evaluation.measures.measure import resized
from engine.evaluation.measures.pixels import psnr, ssim
from engine.evaluation.measures.steadiness import flicker
from engine.evaluation.student import MOUTH
from engine.evaluation.track import FaceTrack, follow
from engine.face.landmarks import lip_gap
from engine.face.topology import OUTER_LOWER_LIP, OUTER_UPPER_LIP
from engine.training.data.clips import load_clips
from engine.training.mouth_crop import mouth_crop
from engine.training.portraittalk.begin import build_system
from engine.training.portraittalk.dataset import TalkBatch
from engine.training.portraittalk.roll_out import fixed_roll_out
from engine.training.portraittalk.run_stage import talk_data
from engine.training.portraittalk.stage_config import load_run_config
from engine.training.portraittalk.system import TalkingSystem

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]
LIPS = (*OUTER_UPPER_LIP, *OUTER_LOWER_LIP)
LUMA = np.array([0.299, 0.587, 0.114])
Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Scores:
    """What one video set is worth: a row a person, and the whole set."""

    people: dict[str, Values]
    whole: Values


def held_out_batch(config: Path) -> tuple[TalkingSystem, TalkBatch, int]:
    """A trained run, all the people held out from their first frame to their last, and its sampler's steps."""
    run = load_run_config(config)
    clips, settings = load_clips(run.data.clips), run.stage("joint")
    tests = [c for c in clips if c.card.split == "test"]
    system = build_system(run, "distill", clips).eval()
    _, data = talk_data(run, clips, settings, len(tests[0]) - 1, masked=False)
    return system, data.fixed(len(tests)), settings.sample_steps


def pictures(images: Tensor) -> U8:
    """Images (..., 3, H, W) in [-1, 1] -> (..., H, W, 3)."""
    scaled = (images.clamp(-1, 1) + 1) * 127.5
    return np.asarray(scaled.round().byte().movedim(-3, -1).cpu().numpy())


def drawn_by(
    system: TalkingSystem, batch: TalkBatch, steps: int, strength: float | None = None
) -> tuple[U8, U8]:
    """What a run makes of a batch, twice (P, T, H, W, 3): at first, and once it has gone back and begins again.

    Args:
        strength: as in `fixed_roll_out`.
    """
    count = batch.frames.shape[1]
    there, back = range(count), range(count - 2, -1, -1)
    order = [*there, *back, *there[1:]]
    made = fixed_roll_out(system, batch, steps, order=order, strength=strength)
    frames = pictures(torch.stack(made, 1))
    return frames[:, :count], frames[:, -count:]


@torch.inference_mode()
def references(system: TalkingSystem, batch: TalkBatch) -> dict[str, U8]:
    """Ceiling and floor (P, T, H, W, 3): the drawn frames through the codec, and the portrait standing still."""
    flat = batch.frames.flatten(0, 1)
    coded = system.decode(system.encode(flat)).unflatten(0, batch.frames.shape[:2])
    still = batch.references[:, :1].expand_as(batch.frames)
    return {"codec": pictures(coded), "still": pictures(still)}


class Truth:
    """The drawn frames of the people held out, and what is read of them once.

    Args:
        store: folder of fetched packages, for Inception.
    """

    def __init__(self, batch: TalkBatch, names: list[str], store: Path) -> None:
        self.frames = pictures(batch.frames)  # (P, T, H, W, 3)
        self.landmarks = batch.landmarks.numpy()  # (P, T, 478, 2) in [0, 1]
        self.names, self._store = names, store
        self.notes: list[str] = []

    @cached_property
    def tracks(self) -> list[FaceTrack | None]:
        """The faces as the reader sees them."""
        return [_track(frames) for frames in self.frames]

    @cached_property
    def features(self) -> NDArray[np.float32] | None:
        """Inception's (P * T, 2048); None, and a note, where the network cannot be brought."""
        try:
            return self._seen(self.frames)
        except DataError as error:
            self.notes.append(f"FID, KID: not run, {error}")
            return None

    def _seen(self, frames: U8) -> NDArray[np.float32]:
        return inception_features(frames.reshape(-1, *frames.shape[2:]), self._store)

    def scores(self, frames: U8, later: U8 | None = None) -> Scores:
        """Measure frames (P, T, H, W, 3) that belong to these, and what was made of them `later` in a run."""
        each = {name: self._person(row, frames[row]) for row, name in enumerate(self.names)}
        if later is not None:
            for row, name in enumerate(self.names):
                each[name]["later"] = _apart(later[row], self.frames[row]) - _apart(
                    frames[row], self.frames[row]
                )
        whole: Values = {}
        if self.features is not None:
            seen = self._seen(frames)
            whole = {"fid": fid(seen, self.features), "kid": 1000 * kid(seen, self.features)}
        return Scores(each, whole)

    def _person(self, row: int, frames: U8) -> Values:
        real = self.frames[row]
        values = {
            "psnr": finite_mean(psnr(frames, real)),
            "ssim": float(ssim(frames, real).mean()),
            "mouth_r": mouth_follows(frames, self.landmarks[row]),
            "mouth_l1": _mouths_apart(frames, real, self.landmarks[row]),
            **steadiness(frames),
        }
        ours, theirs = _track(frames), self.tracks[row]
        values["found"] = 0.0 if ours is None else float(ours.found.mean())
        if ours is None or theirs is None:
            return values
        both = ours.found & theirs.found
        if both.sum() >= 2:
            a, b = ours.points[both], theirs.points[both]
            values["adfd"] = adfd(a, b, SIDE * np.sqrt(2)).score
            values |= landmark_distances(a, b, (int(SIDE), int(SIDE)))
        return values


def steadiness(frames: U8) -> Values:
    """How much frames (T, H, W, 3) change from one to the next, and flicker, in levels of 255."""
    return {
        "change": float(np.abs(np.diff(frames.astype(np.float32), axis=0)).mean()),
        "flicker": float(flicker(frames).mean()),
    }


def _apart(frames: U8, real: U8) -> float:
    return float(np.abs(frames.astype(np.float32) - real).mean())


def _mouths_apart(frames: U8, real: U8, landmarks: NDArray[np.float32]) -> float:
    """Mean difference of mouths of frames (T, H, W, 3), in levels of 255; landmarks (T, 478, 2) in [0, 1]."""
    points = torch.from_numpy(landmarks)
    side = max(MOUTH, frames.shape[2] // 4)
    ours, theirs = (
        mouth_crop(torch.from_numpy(rgb.astype(np.float32)).movedim(-1, 1), points, side)
        for rgb in (frames, real)
    )
    return float(l1_loss(ours, theirs))


def finite_mean(values: F64) -> float:
    """The mean of values (T,) without infinite ones: a still portrait is one of the frames itself."""
    return float(np.mean(values[np.isfinite(values)]))


def _track(frames: U8) -> FaceTrack | None:
    """The face of frames (T, H, W, 3), enlarged to 256 pixels a side; None where there is none in any."""
    try:
        return follow(resized(frames, int(SIDE), int(SIDE)))
    except DataError:
        return None


def mouth_follows(frames: U8, landmarks: NDArray[np.float32]) -> float:
    """Correlation of how dark the mouth is in frames (T, H, W, 3) with how wide it was drawn open.

    The mouth's place is known from the drawing, `landmarks` (T, 478, 2) in [0, 1], and its inside is dark.
    0 where either never changes.
    """
    side = np.array(frames.shape[2:0:-1])
    dark = []
    for rgb, points in zip(frames, landmarks[:, list(LIPS)] * side, strict=True):
        left, top = np.floor(points.min(0)).astype(int).clip(0, side - 1)
        right, bottom = np.ceil(points.max(0)).astype(int).clip(1, side)
        dark.append(-(rgb[top:bottom, left:right] @ LUMA).mean())
    gap = lip_gap(landmarks)
    if np.std(dark) < 1e-6 or np.std(gap) < 1e-9:
        return 0.0
    return float(np.corrcoef(dark, gap)[0, 1])
