"""Measures whether rendered lips follow the sound: `python -m engine.evaluation.lips --help`.

Portraits are drawn by the live engine and their lips are read back from the frames: by the public
landmarker with `--landmarker`, else by the project's own landmark net, which is coarser on small
faces (on a 256-pixel film the two agree at r = .72). The gap is that of the inner lips over face
height (13-14 over 10-152).

Three questions: does the gap follow the phone rules on voices never trained on; do the lips meet
on p, b, m of recorded English; does a filmed speaker, driven by his own sound, move as he did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from engine.audio.sound_file import read_audio
from engine.avatar import AvatarEngine
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.evaluation.alignment import Aligner, read_transcripts
from engine.evaluation.lip_figures import (
    CLOSED,
    Said,
    agreement,
    best_lag,
    correlation_at,
    log_energy,
    meeting_offset,
    percentiles,
    rule_coefficients,
    span_minima,
)
from engine.evaluation.motion import load as load_motion
from engine.evaluation.spoken import recorded, unseen_voices
from engine.evaluation.track import follow, own_reader
from engine.face.landmarks import lip_gap, mouth_width
from engine.motion.retarget import FaceBasis, retarget
from engine.offline.motion_file import run
from engine.offline.video import frames_of
from engine.training.data.labeller import Labeller
from engine.training.data.talking_video import frames_at
from engine.training.speech.espeak import Espeak
from engine.types import RgbImage

F32 = NDArray[np.float32]
# Shares are also told at other thresholds and for spans that were not chosen.
THRESHOLDS = (0.003, 0.006, 0.009, 0.012)
MOUTH_LAG = 1  # frames by which a mouth follows the energy of its own speech (40 ms)
STILL = np.zeros(6, np.float32)  # a head that does not move


class Bench:
    """The engine with its portraits, and what is needed to read them."""

    def __init__(
        self, config: EngineConfig, portraits: Sequence[Path], label: Labeller | None = None
    ) -> None:
        self._label = label
        backend = load_backend(config.backend, threads=config.threads)
        self.engine = AvatarEngine.load(config, backend)
        self._reader = own_reader(config)
        self.basis = FaceBasis.load(config.weights / "basis.npz")
        self.encoder, self.decoder = load_motion(config, config.threads)
        images = [np.asarray(Image.open(path).convert("RGB")) for path in portraits]
        self.identities = [self.engine.enroll(rgb) for rgb in images]

    def read(self, frames: Iterable[RgbImage]) -> F32:
        """Gap and width (T, 2) of the lips in frames (H, W, 3)."""
        return follow(frames, self._reader, self._label).lips

    def rendered(self, identity: Any, pcm: F32) -> F32:
        """Gap (T,) read back from the frames of `pcm`."""
        return self.drawn(identity, pcm)[:, 0]

    def drawn(self, identity: Any, pcm: F32) -> F32:
        """Gap and width (T, 2) read back from the frames of `pcm`."""
        return self.read(frame.rgb for frame in frames_of(self.engine, identity, pcm))

    def asked(self, identity: Any, coefficients: F32) -> F32:
        """Gap (T,) of the landmarks that coefficients (T, 52) ask of a portrait, undrawn."""
        return self.told(identity, coefficients)[:, 0]

    def told(self, identity: Any, coefficients: F32) -> F32:
        """Gap and width (T, 2) of the landmarks that coefficients (T, 52) ask of a portrait."""
        faces = np.stack([retarget(identity.neutral, self.basis, c, STILL) for c in coefficients])
        return np.stack([lip_gap(faces), mouth_width(faces)], 1).astype(np.float32)

    def moved(self, pcm: F32) -> F32:
        """Coefficients (T, 52) that the networks give a sound."""
        return run(self.encoder, self.decoder, pcm).coefficients


def by_rule(bench: Bench, sentences: Sequence[Said], drawn: int) -> dict[str, Any]:
    """Correlation of the gap with that of the phone rules on the same portrait."""
    rows: dict[str, dict[str, Any]] = {}
    for number, said in enumerate(sentences):
        ruled, moved = rule_coefficients(said), bench.moved(said.pcm)
        found: dict[str, list[float]] = {"asked": [], "lag asked": []}
        for identity in bench.identities:
            truth, asked = bench.asked(identity, ruled), bench.asked(identity, moved)
            found["asked"].append(correlation_at(truth, asked, 0))
            found["lag asked"].append(best_lag(truth, asked, 3)[0])
            if number < drawn:
                seen = bench.rendered(identity, said.pcm)
                found.setdefault("rendered", []).append(correlation_at(truth, seen, 0))
                found.setdefault("lag", []).append(best_lag(truth, seen, 3)[0])
        rows[said.name] = {k: round(float(np.mean(v)), 3) for k, v in found.items()}
    mean = {
        name: round(float(np.mean([r[name] for r in rows.values() if name in r])), 3)
        for name in ("rendered", "asked")
    }
    return mean | {"bar": 0.8, "voices": rows}


def closures(bench: Bench, sentences: Sequence[Said], drawn: int) -> dict[str, Any]:
    """How often the lips meet on p, b, m."""
    minima: dict[str, list[float]] = {"rendered": [], "asked": []}
    anywhere: list[float] = []
    gaps: list[F32] = []
    for number, said in enumerate(sentences):
        moved = bench.moved(said.pcm)
        for identity in bench.identities:
            minima["asked"] += span_minima(bench.asked(identity, moved), said.phones)
            if number >= drawn:
                continue
            seen = bench.rendered(identity, said.pcm)
            minima["rendered"] += span_minima(seen, said.phones)
            anywhere += [float(seen[t : t + 5].min()) for t in range(0, len(seen) - 5, 5)]
            gaps.append(seen)

    def share(values: list[float], threshold: float) -> float:
        return round(float(np.mean(np.array(values) <= threshold)), 3)

    return {
        "closed": share(minima["rendered"], CLOSED),
        "bar": 0.9,
        "threshold": CLOSED,
        "count": len(minima["rendered"]),
        "closed as asked": share(minima["asked"], CLOSED),
        "count asked": len(minima["asked"]),
        "closed, other thresholds": {str(t): share(minima["rendered"], t) for t in THRESHOLDS},
        "any five frames, same thresholds": {str(t): share(anywhere, t) for t in THRESHOLDS},
        "gap p02 p50 p90": percentiles(np.concatenate(gaps)),
    }


def filmed(bench: Bench, clip: Path, words: str | None = None) -> dict[str, Any]:
    """A filmed speaker's first frame driven by his sound, against his own lips.

    The clip's sound may be early or late. Its offset is measured on the clip alone: where `words` are
    known, by when his lips meet on p, b and m; else as the lag at which his lips follow the energy
    best, less the frame by which every mouth trails its sound.
    """
    pcm = read_audio(clip)
    first = next(frames_at(clip))
    own = bench.read(frames_at(clip))
    energy_lag, energy_r = best_lag(log_energy(pcm), own[:, 0])
    offset: float = energy_lag - MOUTH_LAG
    if words is not None:
        offset = meeting_offset(own[:, 0], Aligner(Espeak().ipa).align(pcm, words))
    identity = bench.engine.enroll(first)
    moved = bench.told(identity, bench.moved(pcm))
    seen = bench.drawn(identity, pcm)
    whole = round(offset)
    return {
        "bar": 0.4,
        "sound late by frames": -offset,
        "rendered": agreement(own, seen, whole),
        "asked": agreement(own, moved, whole),
        "r of log energy at its best lag": round(energy_r, 3),
        "gap p02 p50 p90, filmed": percentiles(own[:, 0]),
        "gap p02 p50 p90, driven": percentiles(seen[:, 0]),
    }


def main(
    portrait: Annotated[
        list[Path] | None,
        typer.Option(help="image of who speaks; may be repeated"),
    ] = None,
    english: Annotated[
        Path | None, typer.Option(help="folder of LJSpeech clips, metadata.csv")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="folder of downloaded packages; measures unseen voices too")
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="video of a speaker, 25 fps, with sound")
    ] = None,
    words: Annotated[
        Path | None, typer.Option(help="text file of what is said in the video")
    ] = None,
    landmarker: Annotated[
        Path | None, typer.Option(help="face_landmarker.task: reads the lips in place of our net")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="folder of the graphs")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of one graph")] = 1,
    paint_every: Annotated[
        int, typer.Option(help="0 as live here, 3 as live without bf16, 1 as `generate`")
    ] = 0,
    drawn: Annotated[
        int, typer.Option(help="sentences to render; others stop at the landmarks")
    ] = 99,
    out: Annotated[Path | None, typer.Option(help="also write the JSON here, part by part")] = None,
) -> None:
    """Print one JSON object."""
    chosen: dict[str, Any] = {} if weights is None else {"weights": weights}
    config = EngineConfig(threads=threads, paint_every=paint_every, **chosen)
    if english is not None and not portrait:
        raise typer.BadParameter("--english needs at least one --portrait to speak it")
    label = Labeller(landmarker) if landmarker is not None else None
    bench = Bench(config, portrait or [], label)
    report: dict[str, Any] = {
        "portraits": len(bench.identities),
        "paint_every": bench.engine.config.paint_every,
        "lips read by": "own net" if label is None else "public landmarker",
    }
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    if clip is not None:
        text = words.read_text() if words is not None else None
        parts.append(("filmed speaker", lambda: filmed(bench, clip, text)))
    if english is not None:
        espeak = Espeak()  # its library bears one user at a time
        if cache is not None:
            texts = sorted(read_transcripts(english).values(), key=len)[-6:]
            voices = unseen_voices(texts, cache, espeak)
            parts.append(("unseen voices", lambda: by_rule(bench, voices, drawn)))
        parts.append(("p, b, m", lambda: closures(bench, recorded(english, espeak), drawn)))
    for name, work in parts:
        report[name] = work()
        if out is not None:
            out.write_text(json.dumps(report, indent=1) + "\n")
    typer.echo(json.dumps(report, indent=1))


if __name__ == "__main__":
    typer.run(main)
