"""Every measure of one video, and those of a set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.adfd import adfd, adfd_paper
from engine.evaluation.measures.clip import Clip
from engine.evaluation.measures.columns import Protocol
from engine.evaluation.measures.landmarks import landmark_distances
from engine.evaluation.measures.measured import Measured
from engine.evaluation.measures.track import FaceTrack, follow


def measure_clip(
    generated: Clip, real: Clip | None, portrait: NDArray[np.uint8], protocol: Protocol
) -> Measured:
    """Measure a generated video.

    Args:
        real: what it is held against; without it only what needs no real video is measured.
        portrait: (H, W, 3), whose face it should be.
        protocol: "pose-given" when head and landmarks come from `real`, "free" when from sound alone.

    Raises:
        DataError: no face in any frame of one of them.
    """
    done = Measured(notes=[*generated.notes])
    track = follow(generated.frames)
    done.notes.extend(track.notes("generated"))
    if real is not None:
        _against(done, generated, track, real)
    return done


def _against(done: Measured, generated: Clip, track: FaceTrack, real: Clip) -> None:
    theirs = follow(real.frames)
    done.notes.extend(theirs.notes("real"))
    length = min(len(generated.frames), len(real.frames))
    if len(generated.frames) != len(real.frames):
        done.notes.append(
            f"{len(generated.frames)} frames against {len(real.frames)} real ones: "
            f"compared over the first {length}"
        )
    both = track.found[:length] & theirs.found[:length]
    height, width = real.frames.shape[1:3]
    scale = np.array([width, height]) / generated.frames.shape[2:0:-1]
    ours, wanted = track.points[:length][both] * scale, theirs.points[:length][both]
    if len(wanted) < 2:
        done.notes.append("fewer than two frames in which both show a face: no landmark measures")
        return
    done.values.update(landmark_distances(ours, wanted, (height, width)))
    found = adfd(ours, wanted, float(np.hypot(width, height)))
    done.values.update(
        adfd=found.score,
        adfd_spatial=found.spatial,
        adfd_motion=found.motion,
        adfd_paper=adfd_paper(ours / [width, height], wanted / [width, height]),
    )


def measure_set(generated: Sequence[Measured], real: Sequence[Measured]) -> dict[str, float]:
    """Measures of all videos together: how many there are, and their frames."""
    return {"n_clips": float(len(generated)), "n_frames": float(_frames(generated))}


def _frames(measured: Sequence[Measured]) -> int:
    return sum(len(m.features.get("inception", ())) for m in measured)
