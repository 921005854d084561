"""One evaluation: every clip by every system in both protocols, made once, measured once, kept by content.

Below the report's folder, `kept/` holds what a stopped run goes on from: clips made ready, videos by
the content of what they are made of, and measures by the content of what they compare.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import engine
from engine.config import HOP_SAMPLES
from engine.errors import AvatarError
from engine.evaluation import systems
from engine.evaluation.clips import Prepared, file_key, prepare
from engine.evaluation.measures import Clip, Measured, measure_clip, measure_set
from engine.evaluation.sets import EvaluationSet
from engine.evaluation.systems import PROTOCOLS, REFERENCES, TITLES, Made, Protocol

Progress = Callable[[int, int], None]
Say = Callable[[str], None]
Maker = Callable[[Prepared, Protocol, Path], Made]
DRAWS, MEASURES = ("render", "motion", "weights"), ("evaluation/measures",)
VIDEO_SUFFIXES = (".mkv", ".mp4", ".mov", ".webm", ".avi")


@dataclass(slots=True)
class Row:
    """One video, measured."""

    system: str
    protocol: Protocol
    clip: str
    video: Path
    values: dict[str, float]
    series: dict[str, list[float]]
    notes: list[str]
    features: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """All of an evaluation; `bad` counts what was refused, and why."""

    set_name: str
    licence: str
    layout: str
    clips: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    sets: dict[str, dict[str, float]] = field(default_factory=dict)  # "system|protocol" -> measures
    bad: list[tuple[str, str]] = field(default_factory=list)  # what, why
    prepared: dict[str, Prepared] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated. `live` makes the videos of the engine of that name."""

    wanted: EvaluationSet
    engines: tuple[str, ...]
    out: Path
    videos: Path | None = None  # finished ones of another system: CLIP.mp4, or PROTOCOL/CLIP.mp4
    protocols: tuple[Protocol, ...] = PROTOCOLS
    live: Maker | None = None


def evaluate(plan: Plan, progress: Progress, say: Say) -> Outcome:
    """Make what is missing, measure what is not measured; one bad clip ends nothing."""
    outcome = Outcome(plan.wanted.name, plan.wanted.licence, plan.wanted.layout)
    kept = plan.out / "kept"
    for asked in plan.wanted.clips:
        try:
            outcome.prepared[asked.name] = prepare(asked, kept / "clips")
            outcome.clips.append(asked.name)
        except AvatarError as error:
            outcome.bad.append((asked.name, str(error)))
            say(f"left out: {error}")
    jobs = list(_jobs(plan, list(outcome.prepared.values())))
    for done, (system, protocol, clip) in enumerate(jobs):
        progress(done, len(jobs))
        try:
            video, made = _video(plan, system, protocol, clip, list(outcome.prepared.values()))
            if video is not None:
                outcome.rows.append(_measure(kept, system, protocol, clip, video, made))
        except AvatarError as error:
            outcome.bad.append((f"{clip.name}, {system}, {protocol}", str(error)))
            say(f"{clip.name}, {system}, {protocol}: {error}")
    progress(len(jobs), len(jobs))
    outcome.sets = _sets(outcome, kept)
    return outcome


def _jobs(plan: Plan, clips: list[Prepared]) -> Iterable[tuple[str, Protocol, Prepared]]:
    """The cheap ones first, so that a stopped run has its floor and ceiling."""
    own = ("videos",) if plan.videos else ()
    for system in (*REFERENCES, *own, *plan.engines):
        for protocol in plan.protocols:
            for clip in clips:
                if clip.real is not None or (protocol == "free" and system != "re-encode"):
                    yield system, protocol, clip


def _video(
    plan: Plan, system: str, protocol: Protocol, clip: Prepared, clips: list[Prepared]
) -> tuple[Path | None, Made]:
    """A clip's video by a system, made if it is not kept; what making it had to say."""
    if system == "videos":
        assert plan.videos is not None  # `_jobs` sees to it
        return finished(plan.videos, protocol, clip.name), Made()
    protocol_free = system in REFERENCES
    others = "".join(c.key for c in clips) if system == "wrong-sound" else ""
    made_of = f"{system} {'' if protocol_free else protocol} {clip.key} {others} {code_key(*DRAWS)}"
    name = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    video = plan.out / "kept" / "videos" / f"{clip.name}-{system}-{name}.mkv"
    card = video.with_suffix(".json")
    if video.is_file() and card.is_file():
        told = json.loads(card.read_text())
        return video, Made(tuple(told["notes"]), tuple((n, v) for n, v in told["figures"]))
    video.parent.mkdir(parents=True, exist_ok=True)
    made: Made | None
    if system in REFERENCES:
        made = systems.reference(system, clip, clips, video)
    elif system == "live":
        assert plan.live is not None  # the command sees to it
        made = plan.live(clip, protocol, video)
    else:
        made = systems.draw(system, clip, protocol, video)
    if made is None:
        return None, Made()
    card.write_text(json.dumps(asdict(made)))
    return video, made


def finished(folder: Path, protocol: Protocol, name: str) -> Path:
    """The finished video of a clip: of the protocol's own folder, else of `folder` itself.

    Raises:
        AvatarError: there is none.
    """
    for place in (folder / protocol, folder):
        for suffix in VIDEO_SUFFIXES:
            if (path := place / f"{name}{suffix}").is_file():
                return path
    raise AvatarError(f"no video {name} (.mp4, .mkv ...) in {folder}")


def _measure(
    kept: Path, system: str, protocol: Protocol, clip: Prepared, video: Path, made: Made
) -> Row:
    """Measure a video against the film, unless that was done."""
    key = f"{file_key(video)} {clip.key} {protocol} {code_key(*MEASURES)}"
    place = kept / "measures" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    if place.is_file():
        measured = unpack(place)
    else:
        generated = Clip.read(video)
        real = None if clip.real is None else Clip.read(clip.real)
        if protocol == "pose-given" and real is not None:
            generated, real = without_first(generated), without_first(real)
        begun = time.monotonic()
        measured = measure_clip(generated, real, clip.portrait, protocol)
        measured.values["measured_s"] = time.monotonic() - begun
        pack(place, measured)
    values = measured.values | dict(made.figures)
    series = {name: [float(v) for v in row] for name, row in measured.series.items()}
    notes = [*clip.notes, *made.notes, *measured.notes]
    return Row(system, protocol, clip.name, video, values, series, notes, dict(measured.features))


def without_first(clip: Clip) -> Clip:
    """A clip less its first frame: pose-given that is the portrait itself, which costs nothing to draw."""
    sound = None if clip.sound is None else clip.sound[HOP_SAMPLES:]
    return replace(clip, frames=clip.frames[1:], sound=sound)


def pack(place: Path, measured: Measured) -> None:
    """Keep measures in one file, which appears only when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.stem}.part.npz")
    told = json.dumps({"values": measured.values, "notes": list(measured.notes)})
    arrays = {f"series.{n}": np.asarray(a) for n, a in measured.series.items()}
    arrays |= {f"features.{n}": np.asarray(a) for n, a in measured.features.items()}
    np.savez_compressed(partial, told=np.array(told), **arrays)  # type: ignore[arg-type]
    partial.replace(place)


def unpack(place: Path) -> Measured:
    """Undo `pack`."""
    with np.load(place) as saved:
        told = json.loads(str(saved["told"]))
        parts: dict[str, dict[str, NDArray[Any]]] = {"series": {}, "features": {}}
        for name in saved.files:
            kind, _, rest = name.partition(".")
            if kind in parts:
                parts[kind][rest] = saved[name]
    return Measured(
        values=told["values"],
        series=parts["series"],
        notes=told["notes"],
        features=parts["features"],
    )


def _sets(outcome: Outcome, kept: Path) -> dict[str, dict[str, float]]:
    """What is measured of all clips of a system together, against the re-encoded films' own films."""
    real: list[Measured] = []
    for clip in outcome.prepared.values():
        if clip.real is not None:
            made = _measure(kept, "real", "free", clip, clip.real, Made())
            real.append(_as_measured(made))
    found: dict[str, dict[str, float]] = {}
    for system, protocol in dict.fromkeys((r.system, r.protocol) for r in outcome.rows):
        rows = [r for r in outcome.rows if (r.system, r.protocol) == (system, protocol)]
        if real:
            found[f"{system}|{protocol}"] = measure_set([_as_measured(r) for r in rows], real)
    return found


def _as_measured(row: Row) -> Measured:
    return Measured(values=row.values, series={}, notes=row.notes, features=row.features)


@cache
def code_key(*parts: str) -> str:
    """SHA-256 of folders of the engine: the code and weights that are in them."""
    digest = hashlib.sha256()
    for part in parts:
        for path in sorted((Path(engine.__file__).parent / part).rglob("*")):
            if path.suffix in (".py", ".onnx", ".npz", ".safetensors") and path.is_file():
                digest.update(path.read_bytes())
    return digest.hexdigest()


def title(system: str) -> str:
    """What tables call a system."""
    return TITLES.get(system, "finished videos" if system == "videos" else system)
