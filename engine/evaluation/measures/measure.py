"""Every measure of one video, and those of a set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import DataError, WeightsError
from engine.evaluation.adfd import adfd, adfd_paper
from engine.evaluation.measures.clip import Clip
from engine.evaluation.measures.columns import Protocol
from engine.evaluation.measures.identity import csim
from engine.evaluation.measures.inception import fid, inception_features, kid
from engine.evaluation.measures.landmarks import landmark_distances
from engine.evaluation.measures.life import life, unusual
from engine.evaluation.measures.lips import lips_against, lips_alone, phones_said
from engine.evaluation.measures.measured import Measured
from engine.evaluation.measures.perceptual import lpips, lpips_to_next
from engine.evaluation.measures.pixels import psnr, ssim
from engine.evaluation.measures.placement import placement_errors, placements
from engine.evaluation.measures.settings import Settings
from engine.evaluation.measures.steadiness import (
    colour_apart,
    features_apart,
    flicker,
    slope_a_minute,
)
from engine.evaluation.measures.sync import face_crops, own_sync, syncnet
from engine.evaluation.measures.track import FaceTrack, follow
from engine.face.landmarks import lip_gap

U8 = NDArray[np.uint8]
SHORTEST = 3  # frames; what moves cannot be told of fewer


def measure_clip(
    generated: Clip,
    real: Clip | None,
    portrait: U8,
    protocol: Protocol,
    settings: Settings | None = None,
) -> Measured:
    """Measure a generated video. What cannot be measured is left out, and `notes` says why.

    Args:
        real: what it is held against; without it only what needs no real video is measured. It is resized to
            the generated frames' size where they differ.
        portrait: (H, W, 3), whose face it should be.
        protocol: "pose-given" when head and landmarks come from `real`: frames are compared with its frames;
            "free" when they come from sound alone.

    Raises:
        DataError: no face in any frame of one of them, none in the portrait, fewer than three frames, or a
            network cannot be brought.
    """
    settings = settings or Settings()
    if len(generated.frames) < SHORTEST:
        raise DataError(f"a clip of {len(generated.frames)} frames: at least {SHORTEST} are needed")
    done = Measured(notes=[*generated.notes])
    track = follow(generated.frames)
    done.notes.extend(track.notes("generated"))
    _alone(done, generated, track, portrait, settings)
    _sync(done, generated, track, settings)
    if real is not None:
        done.notes.extend(f"real: {note}" for note in real.notes)
        _against(done, generated, track, real, protocol, settings)
    return done


def _alone(done: Measured, clip: Clip, track: FaceTrack, portrait: U8, settings: Settings) -> None:
    """What needs no real video."""
    alike = csim(clip.frames, track, portrait, settings.store)
    seen = inception_features(clip.frames, settings.store)
    next_one, jumps = lpips_to_next(clip.frames, settings.store), flicker(clip.frames)
    colours = colour_apart(clip.frames, track)
    alike_found = np.where(track.found, alike, np.nan)
    done.series.update(csim=alike_found, tlpips=next_one, flicker=jumps, colour=colours)
    done.series["lip_gap"] = np.asarray(lip_gap(track.landmarks))
    done.features["inception"] = seen
    phones, why_not = phones_said(clip)
    if why_not:
        done.notes.append(why_not)
    done.values.update(
        csim=float(np.nanmean(alike_found)),
        tlpips=float(next_one.mean()),
        flicker=float(jumps.mean()),
        drift_identity=slope_a_minute(alike),
        drift_colour=slope_a_minute(colours),
        drift_features=slope_a_minute(features_apart(seen)),
        found=float(track.found.mean()),
        **lips_alone(track, phones),
        **life(track),
    )
    done.notes.extend(unusual(done.values))


def _sync(done: Measured, clip: Clip, track: FaceTrack, settings: Settings) -> None:
    """Lips against the clip's own sound."""
    if clip.sound is None:
        done.notes.append("lips against sound: not run, no sound")
        return
    try:
        own = own_sync(track, clip.sound)
        done.values.update(
            own_sync_c=own.confidence, own_sync_d=own.distance, own_sync_offset=float(own.offset)
        )
        if settings.syncnet is None:
            done.notes.append("Sync-C, Sync-D: not run, no SyncNet file (PORTRAITTALK_SYNCNET)")
            return
        public = syncnet(face_crops(clip.frames, track), clip.sound, settings.syncnet)
        done.notes.append("Sync-C, Sync-D: cut by this project's landmarks, not by S3FD's boxes")
        done.values.update(
            sync_c=public.confidence, sync_d=public.distance, sync_offset=float(public.offset)
        )
    except (ValueError, WeightsError) as error:
        done.notes.append(f"lips against sound: not run, {error}")


def _against(
    done: Measured,
    clip: Clip,
    track: FaceTrack,
    real: Clip,
    protocol: Protocol,
    settings: Settings,
) -> None:
    """What compares with a real video."""
    length = min(len(clip.frames), len(real.frames))
    if len(clip.frames) != len(real.frames):
        done.notes.append(
            f"{len(clip.frames)} frames against {len(real.frames)} real ones: "
            f"compared over the first {length}"
        )
    height, width = clip.frames.shape[1:3]
    theirs, frames = follow(real.frames[:length]), real.frames[:length]
    if frames.shape[1:3] != (height, width):
        done.notes.append(
            f"real frames of {frames.shape[2]} x {frames.shape[1]} resized to {width} x {height}"
        )
        frames = resized(frames, width, height)
    done.notes.extend(theirs.notes("real"))
    scale = np.array([width, height]) / real.frames.shape[2:0:-1]
    _points(done, track, theirs, scale, (height, width))
    done.series["lip_gap_real"] = np.asarray(lip_gap(theirs.landmarks))
    done.values.update(lips_against(track, theirs))
    if protocol == "pose-given":
        _pixels(done, clip.frames[:length], frames, settings)
    own = float(lpips_to_next(real.frames[:length], settings.store).mean()) if length > 1 else 0.0
    done.values["tlpips_excess"] = done.values["tlpips"] - own


def _points(
    done: Measured,
    track: FaceTrack,
    theirs: FaceTrack,
    scale: NDArray[Any],
    size: tuple[int, int],
) -> None:
    length = len(theirs.found)
    both = track.found[:length] & theirs.found
    ours, wanted = track.points[:length][both], theirs.points[both] * scale
    if len(wanted) < 2:
        done.notes.append("fewer than two frames in which both show a face: no landmark measures")
        return
    done.values.update(landmark_distances(ours, wanted, size))
    commanded = placements(theirs, scale, size[1])[both]
    read = placements(track, 1.0, size[1])[:length][both]
    done.values.update(placement_errors(commanded, read))
    found = adfd(ours, wanted, float(np.hypot(*size)))
    done.values.update(
        adfd=found.score,
        adfd_spatial=found.spatial,
        adfd_motion=found.motion,
        adfd_paper=adfd_paper(ours / size[::-1], wanted / size[::-1]),
    )


def _pixels(done: Measured, ours: U8, real: U8, settings: Settings) -> None:
    """Frame against frame, over the whole picture."""
    every = settings.vgg_every
    measures: dict[str, Callable[[], NDArray[Any]]] = {
        "psnr": lambda: psnr(ours, real),
        "ssim": lambda: ssim(ours, real),
        "lpips_alex": lambda: lpips(ours, real, settings.store),
        "lpips_vgg": lambda: lpips(ours[::every], real[::every], settings.store, "vgg16"),
    }
    for name, measure in measures.items():
        done.series[name] = measure()
        done.values[name] = float(done.series[name].mean())
    if every > 1:
        done.notes.append(f"LPIPS (VGG): every {every}th frame")


def resized(frames: U8, width: int, height: int) -> U8:
    """Frames (T, H, W, 3) at another size, antialiased."""
    return np.stack(
        [
            np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.LANCZOS))
            for f in frames
        ]
    )


def measure_set(generated: Sequence[Measured], real: Sequence[Measured]) -> dict[str, float]:
    """FID and KID (x 1000) of all videos together, and of how many videos and frames.

    Without features on one side, or with fewer than two frames, only the counts are given.
    """
    ours, theirs = _features(generated), _features(real)
    told = {
        "n_clips": float(len(generated)),
        "n_frames": float(len(ours)),
        "n_frames_real": float(len(theirs)),
    }
    if min(len(ours), len(theirs)) >= 2:
        told |= {"fid": fid(ours, theirs), "kid": 1000 * kid(ours, theirs)}
    return told


def _features(measured: Sequence[Measured]) -> NDArray[Any]:
    found = [m.features["inception"] for m in measured if "inception" in m.features]
    return np.concatenate(found) if found else np.zeros((0, 0))
