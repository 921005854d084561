"""Every measure of one video, and those of a set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.config import FPS
from engine.errors import DataError, WeightsError
from engine.evaluation.adfd import adfd, adfd_paper
from engine.evaluation.kept import Saved, Shelf, code_key
from engine.evaluation.measures.clip import Clip
from engine.evaluation.measures.columns import COLUMNS, Protocol
from engine.evaluation.measures.costs import Meter, total
from engine.evaluation.measures.identity import of_portrait
from engine.evaluation.measures.inception import fid, kid
from engine.evaluation.measures.landmarks import landmark_distances
from engine.evaluation.measures.latents import drift_a_minute
from engine.evaluation.measures.life import life, unusual
from engine.evaluation.measures.lips import lips_against, lips_alone, phones_said
from engine.evaluation.measures.measured import Measured
from engine.evaluation.measures.perceptual import lpips
from engine.evaluation.measures.pixels import SIDE, psnr, ssim
from engine.evaluation.measures.placement import placement_errors, placements
from engine.evaluation.measures.reading import Reading, read_pictures
from engine.evaluation.measures.settings import Settings
from engine.evaluation.measures.steadiness import apart_from_start, slope_a_minute
from engine.evaluation.measures.sync import face_crops, own_sync, syncnet
from engine.evaluation.track import FaceTrack

U8 = NDArray[np.uint8]
SHORTEST = 3  # frames; what moves cannot be told of fewer
FEWEST = 10  # frames that LPIPS by VGG16 is taken of, where there are as many
# Of the engine: what changes the measures of the same videos.
CODE = (
    "evaluation/measures", "evaluation/track.py", "evaluation/identity.py", "evaluation/adfd.py",
    "evaluation/lip_figures.py", "loaders/lpips.py", "nets", "face", "weights",
)  # fmt: skip


def measure_clip(
    generated: Clip,
    real: Clip | None,
    portrait: U8,
    protocol: Protocol,
    settings: Settings | None = None,
    *,
    first: int = 0,
) -> Measured:
    """Measure a generated video. What cannot be measured is left out, and `notes` says why.

    Args:
        real: what it is held against; without it only what needs no real video is measured. It is resized to
            the generated frames' size where they differ.
        portrait: (H, W, 3), whose face it should be.
        protocol: "pose-given" when head and landmarks come from `real`: frames are compared with its frames;
            "free" when they come from sound alone.
        first: frame from which on both are measured.

    Raises:
        DataError: no face in any frame of one of them, none in the portrait, fewer than three frames, or a
            network cannot be brought.
    """
    settings = settings or Settings()
    if (count := len(generated.frames) - first) < SHORTEST:
        raise DataError(f"a clip of {max(count, 0)} frames: at least {SHORTEST} are needed")
    shelf, meter = Shelf(settings.kept, code_key(*CODE)), Meter()
    ours = read_pictures(generated, settings, shelf, meter).part(first)
    done = Measured(notes=[*generated.notes, *ours.track.notes("generated")], costs=meter.costs)
    wanted = of_portrait(portrait, settings.store)
    said = generated.after(first)
    with meter.of("Motion, drift and lips of what was read"):
        _alone(done, said, ours, wanted)
    with meter.of("Own sync, SyncNet"):
        _sync(done, said, ours.track, settings)
    if real is not None:
        done.notes.extend(f"real: {note}" for note in real.notes)
        of_real = Meter()
        theirs = read_pictures(real, settings, shelf, of_real).part(first)
        meter.add("The real clip's pictures, read once", total(of_real.costs.values()))
        with meter.of("LMD, ADFD and lips against the real clip"):
            _against(done, ours, theirs, (generated, real), first)
        if protocol == "pose-given":
            _pixels(done, (generated, real), first, settings, shelf, meter)
    return done


def _alone(done: Measured, clip: Clip, ours: Reading, wanted: NDArray[Any]) -> None:
    """What needs no real video; `wanted` (128,) is the portrait's embedding."""
    track, alike = ours.track, (ours.faces @ wanted).astype(np.float64)
    colours = apart_from_start(ours.colours)
    alike_found = np.where(track.found, alike, np.nan)
    done.series.update(csim=alike_found, tlpips=ours.to_next, flicker=ours.jumps, colour=colours)
    done.series["lip_gap"] = track.lips[:, 0]
    done.features["inception"] = ours.inception
    phones, why_not = phones_said(clip)
    if why_not:
        done.notes.append(why_not)
    done.values.update(
        csim=float(np.nanmean(alike_found)),
        tlpips=float(ours.to_next.mean()),
        flicker=float(ours.jumps.mean()),
        drift_identity=slope_a_minute(alike),
        drift_colour=slope_a_minute(colours),
        drift_features=slope_a_minute(apart_from_start(ours.inception)),
        drift_latent_mean=drift_a_minute(ours.latents[:, 0]),
        drift_latent_spread=drift_a_minute(ours.latents[:, 1]),
        found=float(track.found.mean()),
        **lips_alone(track, phones),
        **life(track),
    )
    done.notes.extend(unusual(done.values, len(track.found) / FPS))


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
    done: Measured, ours: Reading, theirs: Reading, clips: tuple[Clip, Clip], first: int
) -> None:
    """What compares the faces and the motion with a real video's."""
    counts = [len(clip.frames) - first for clip in clips]
    length = min(counts)
    if counts[0] != counts[1]:
        done.notes.append(
            f"{counts[0]} frames against {counts[1]} real ones: compared over the first {length}"
        )
    theirs = theirs.part(0, length)
    (height, width), size = (clip.frames.shape[1:3] for clip in clips)
    done.notes.extend(theirs.track.notes("real"))
    scale = np.array([width, height]) / np.array(size[::-1])
    _points(done, ours.track, theirs.track, scale, (height, width))
    done.series["lip_gap_real"] = theirs.track.lips[:, 0]
    done.values.update(lips_against(ours.track, theirs.track))
    own = float(theirs.to_next.mean()) if length > 1 else 0.0
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


def _pixels(
    done: Measured,
    clips: tuple[Clip, Clip],
    first: int,
    settings: Settings,
    shelf: Shelf,
    meter: Meter,
) -> None:
    """Frame against frame, over the whole picture, unless the same pictures were compared before."""
    count, (height, width) = min(len(c.frames) for c in clips), clips[0].frames.shape[1:3]
    every = settings.vgg_every or vgg_step(count - first, height, width)
    ours, real = (clip.frames[first:count] for clip in clips)
    if every > 1:
        done.notes.append(f"LPIPS (VGG): every {every}th frame")
    if real.shape != ours.shape:
        done.notes.append(
            f"real frames of {real.shape[2]} x {real.shape[1]} resized to {width} x {height}"
        )
    of = (*(clip.key for clip in clips), f"{first} {every}")
    if (saved := shelf.take("pixels", *of)) is None:
        own = Meter()
        if real.shape != ours.shape:
            real = resized(real, width, height)
        measures: dict[str, Callable[[], NDArray[Any]]] = {
            "psnr": lambda: psnr(ours, real),
            "ssim": lambda: ssim(ours, real),
            "lpips_alex": lambda: lpips(ours, real, settings.store),
            "lpips_vgg": lambda: lpips(ours[::every], real[::every], settings.store, "vgg16"),
        }
        arrays = {}
        for name, measure in measures.items():
            with own.of(COLUMNS[name].title):
                arrays[name] = measure()
        saved = Saved({"costs": own.costs}, arrays)
        shelf.put(saved.told, saved.arrays, "pixels", *of)
    for name, cost in saved.told["costs"].items():
        meter.add(name, cost)
    for name, series in saved.arrays.items():
        done.series[name] = series
        done.values[name] = float(series.mean())


def vgg_step(count: int, height: int, width: int) -> int:
    """Of how many frames one is compared by VGG16: a fifth at 256 x 256, fewer of larger ones, ten at least."""
    by_size = 5 * max(1.0, height * width / SIDE**2)
    return max(1, min(round(by_size), max(count // FEWEST, 5)))


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
