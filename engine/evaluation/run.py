"""One evaluation: every clip by every system in both protocols, made once, measured once, kept by content.

Below the report's folder, `kept/` holds what a stopped run goes on from: clips made ready, videos by
the content of what they are made of, measures by the content of what they compare, and below them what
was read of the same pictures, whoever shows them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import SAMPLE_RATE_HZ
from engine.errors import AvatarError
from engine.evaluation import systems
from engine.evaluation.clips import Prepared, file_key, prepare
from engine.evaluation.kept import Saved, Shelf, code_key
from engine.evaluation.measures import Clip, Measured, Settings, measure_clip, measure_set
from engine.evaluation.measures.costs import Meter
from engine.evaluation.measures.measure import CODE
from engine.evaluation.sets import EvaluationSet
from engine.evaluation.systems import PROTOCOLS, REFERENCES, TITLES, Made, Protocol

Progress = Callable[[int, int], None]
Say = Callable[[str], None]
Maker = Callable[[Prepared, Protocol, Path], Made]
Job = tuple[str, Protocol, Prepared]  # a system, in a protocol, on a clip
DRAWS = ("render", "motion", "weights/tiny")
# Seconds of two cores for a second of video: reading its pictures, comparing those of 256 x 256.
MEASURING, COMPARING = 4.0, 4.0
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
    costs: dict[str, dict[str, float]] = field(default_factory=dict)


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
    clips = list(outcome.prepared.values())
    jobs = list(_jobs(plan, clips))
    rows = {n: row for n, job in enumerate(jobs) if (row := _kept(plan, job, clips)) is not None}
    left = [n for n in range(len(jobs)) if n not in rows]
    ahead = work([jobs[n] for n in left])
    for done, n in enumerate(left):
        progress(ahead[done], ahead[-1])
        system, protocol, clip = jobs[n]
        try:
            video, made = _video(plan, jobs[n], clips)
            if video is not None:
                rows[n] = _measure(kept, jobs[n], video, made)
        except AvatarError as error:
            outcome.bad.append((f"{clip.name}, {system}, {protocol}", str(error)))
            say(f"{clip.name}, {system}, {protocol}: {error}")
    outcome.rows = [rows[n] for n in sorted(rows)]
    outcome.sets = _sets(outcome, kept)
    progress(ahead[-1], ahead[-1])
    return outcome


def work(jobs: Sequence[Job]) -> list[int]:
    """A guess, in seconds, at how much is done before each of `jobs`, and after all."""
    seen: set[tuple[str, str]] = set()
    spent = [1.0]  # for loading; and a bar that has moved can tell how fast
    for system, protocol, clip in jobs:
        size = max(1.0, clip.portrait.shape[0] * clip.portrait.shape[1] / 256**2)
        pictures = "re-encode" if system == "wrong-sound" else system
        pictures += "" if system in REFERENCES else protocol
        new = {(pictures, clip.name), ("real" if clip.real else pictures, clip.name)} - seen
        seen |= new
        each = systems.MAKING.get(system, 0.5) + MEASURING * len(new)
        if protocol == "pose-given" and system != "wrong-sound":
            each += COMPARING * size
        spent.append(spent[-1] + each * len(clip.pcm) / SAMPLE_RATE_HZ)
    return [round(seconds) for seconds in spent]


def _jobs(plan: Plan, clips: list[Prepared]) -> Iterable[Job]:
    """The cheap ones first, so that a stopped run has its floor and ceiling."""
    own = ("videos",) if plan.videos else ()
    for system in (*REFERENCES, *own, *plan.engines):
        for protocol in plan.protocols:
            for clip in clips:
                if clip.real is not None or (protocol == "free" and system != "re-encode"):
                    yield system, protocol, clip


def _place(plan: Plan, job: Job, clips: list[Prepared]) -> Path:
    """Where a job's video is, or will be.

    Raises:
        AvatarError: it should be a finished one, and is not there.
    """
    system, protocol, clip = job
    if system == "videos":
        assert plan.videos is not None  # `_jobs` sees to it
        return finished(plan.videos, protocol, clip.name)
    given = "" if system in REFERENCES else protocol
    others = "".join(c.key for c in clips) if system == "wrong-sound" else ""
    made_of = f"{system} {given} {clip.key} {others} {code_key(*DRAWS)}"
    name = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return plan.out / "kept" / "videos" / f"{clip.name}-{system}-{name}.mkv"


def _card(system: str, video: Path) -> Made | None:
    """What making a video had to say; None where it is yet to be made."""
    if system == "videos":
        return Made()
    card = video.with_suffix(".json")
    if not video.is_file() or not card.is_file():
        return None
    told = json.loads(card.read_text())
    return Made(tuple(told["notes"]), tuple((n, v) for n, v in told["figures"]))


def _video(plan: Plan, job: Job, clips: list[Prepared]) -> tuple[Path | None, Made]:
    """A clip's video by a system, made if it is not kept; what making it had to say."""
    system, protocol, clip = job
    video = _place(plan, job, clips)
    if (made := _card(system, video)) is not None:
        return video, made
    video.parent.mkdir(parents=True, exist_ok=True)
    if system in REFERENCES:
        made = systems.reference(system, clip, clips, video)
    elif system == "live":
        assert plan.live is not None  # the command sees to it
        made = plan.live(clip, protocol, video)
    else:
        made = systems.draw(system, clip, protocol, video)
    if made is None:
        return None, Made()
    video.with_suffix(".json").write_text(json.dumps(asdict(made)))
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


def _kept(plan: Plan, job: Job, clips: list[Prepared]) -> Row | None:
    """A job's row, where nothing is left to be done for it."""
    try:
        video = _place(plan, job, clips)
    except AvatarError:
        return None  # said when its turn comes
    if (made := _card(job[0], video)) is None:
        return None
    shelf = Shelf(plan.out / "kept", code_key(*CODE))
    saved = shelf.take("measures", file_key(video), job[2].key, job[1])
    return None if saved is None else _row(job, video, made, unpacked(saved))


def _measure(kept: Path, job: Job, video: Path, made: Made) -> Row:
    """Measure a video against the film, unless that was done."""
    _, protocol, clip = job
    shelf, of = Shelf(kept, code_key(*CODE)), (file_key(video), clip.key, protocol)
    if (saved := shelf.take("measures", *of)) is not None:
        return _row(job, video, made, unpacked(saved))
    measured = _measured(kept, protocol, clip, video)
    packed = pack(measured)
    shelf.put(packed.told, packed.arrays, "measures", *of)
    return _row(job, video, made, measured)


def _row(job: Job, video: Path, made: Made, measured: Measured) -> Row:
    system, protocol, clip = job
    values = measured.values | dict(made.figures)
    series = {name: [float(v) for v in row] for name, row in measured.series.items()}
    notes = [*clip.notes, *made.notes, *measured.notes]
    features, costs = dict(measured.features), measured.costs
    return Row(system, protocol, clip.name, video, values, series, notes, features, costs)


def _measured(kept: Path, protocol: Protocol, clip: Prepared, video: Path) -> Measured:
    meter = Meter()
    with meter.of("Decoding"):
        generated = Clip.read(video)
        film = clip.real
        real = None if film is None else generated if film == video else Clip.read(film)
    # Pose-given, the first frame is the portrait itself, which costs nothing to draw.
    first = int(protocol == "pose-given" and real is not None)
    settings = Settings(kept=kept)
    done = measure_clip(generated, real, clip.portrait, protocol, settings, first=first)
    return replace(done, costs=meter.costs | done.costs)


def pack(measured: Measured) -> Saved:
    """Measures as a file holds them."""
    told = {name: getattr(measured, name) for name in ("values", "notes", "costs")}
    arrays = {f"series.{n}": np.asarray(a) for n, a in measured.series.items()}
    arrays |= {f"features.{n}": np.asarray(a) for n, a in measured.features.items()}
    return Saved(told, arrays)


def unpacked(saved: Saved) -> Measured:
    """Undo `pack`."""
    parts: dict[str, dict[str, NDArray[Any]]] = {"series": {}, "features": {}}
    for name, array in saved.arrays.items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = array
    return Measured(**saved.told, series=parts["series"], features=parts["features"])


def _sets(outcome: Outcome, kept: Path) -> dict[str, dict[str, float]]:
    """What is measured of all clips of a system together, against the re-encoded films' own films."""
    real: list[Measured] = []
    for clip in outcome.prepared.values():
        if clip.real is not None:
            made = _measure(kept, ("real", "free", clip), clip.real, Made())
            real.append(_as_measured(made))
    found: dict[str, dict[str, float]] = {}
    for system, protocol in dict.fromkeys((r.system, r.protocol) for r in outcome.rows):
        rows = [r for r in outcome.rows if (r.system, r.protocol) == (system, protocol)]
        if real:
            found[f"{system}|{protocol}"] = measure_set([_as_measured(r) for r in rows], real)
    return found


def _as_measured(row: Row) -> Measured:
    return Measured(values=row.values, series={}, notes=row.notes, features=row.features)


def title(system: str) -> str:
    """What tables call a system."""
    return TITLES.get(system, "finished videos" if system == "videos" else system)
