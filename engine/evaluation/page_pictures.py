"""Plots and frames of the report's page."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.evaluation import plots
from engine.evaluation.measures import COLUMNS, Clip
from engine.evaluation.run import Outcome, Row, title
from engine.evaluation.systems import REFERENCES
from engine.evaluation.table import Report
from engine.types import RgbImage

SPREAD = ("psnr", "ssim", "lpips_alex", "m_lmd_centred", "csim", "adfd", "lip_gap_r", "own_sync_c")
OVER_TIME = ("psnr", "csim", "lpips_alex")
BESIDE_LATENCY = ("lpips_alex", "m_lmd_centred", "lip_gap_r")
TILE = 160  # pixels of a picture's side
SHOWN_FRAMES = 6
SHOWN_CLIPS = 4
FPS = 25


def plots_of(outcome: Outcome, report: Report, protocol: str) -> str:
    """Spread over clips, measures over time, lips against sound, and quality beside latency."""
    systems = report.systems(protocol)
    colours = plots.colours([title(s) for s in systems])
    drawn = []
    for name in SPREAD:
        each = {title(s): list(report.each(s, protocol, name).values()) for s in systems}
        drawn.append(plots.spread(f"{COLUMNS[name].title}: each clip", each, colours))
    rows = [r for r in outcome.rows if r.protocol == protocol]
    for clip in outcome.clips[:1]:
        here = [r for r in rows if r.clip == clip]
        for name in OVER_TIME:
            series = {
                title(r.system): r.series[name]
                for r in here
                if name in r.series and r.system not in ("still", "wrong-sound")
            }
            drawn.append(
                plots.lines(f"{COLUMNS[name].title} over time [s], {clip}", series, colours)
            )
        drawn.append(_lips(outcome, here, clip, colours))
    for name in BESIDE_LATENCY:
        points = {
            title(s): (late, value)
            for s in systems
            if (late := report.value(s, protocol, "latency_ms")) is not None
            and (value := report.value(s, protocol, name)) is not None
        }
        drawn.append(plots.scatter(f"{COLUMNS[name].title} beside latency [ms]", points, colours))
    return f"<div class=plots>{''.join(drawn)}</div>"


def _lips(outcome: Outcome, rows: list[Row], clip: str, colours: dict[str, str]) -> str:
    """Lip gaps over the loudness of the sound that moved them."""
    series = {
        title(r.system): r.series["lip_gap"]
        for r in rows
        if "lip_gap" in r.series and r.system not in REFERENCES
    }
    real = next((r.series["lip_gap_real"] for r in rows if "lip_gap_real" in r.series), None)
    if real is not None:
        series["real"], colours = real, colours | {"real": "#1c1c1c"}
    if not series:
        return ""
    pcm = outcome.prepared[clip].pcm
    loud = np.sqrt(np.square(pcm[: len(pcm) // 640 * 640].reshape(-1, 640)).mean(1))
    widest = max(float(np.nanmax(np.asarray(s, float))) for s in series.values())
    series["sound (rms, scaled)"] = list(loud / (float(loud.max()) or 1) * widest)
    return plots.lines(f"Lip gap against sound over time [s], {clip}", series, colours)


def strips_of(outcome: Outcome, protocol: str) -> str:
    """Frames at even places, and the worst one of each system, beside what it is worst against."""
    parts = []
    for clip in outcome.clips[:SHOWN_CLIPS]:
        rows = [r for r in outcome.rows if (r.protocol, r.clip) == (protocol, clip)]
        film, portrait = outcome.prepared[clip].real, outcome.prepared[clip].portrait
        real = Clip.read(film).frames if film is not None else None
        if real is not None:
            parts.append(_strip(f"{clip}: real", _even(real)))
        for row in rows:
            if row.system in ("re-encode", "wrong-sound"):
                continue
            frames = Clip.read(row.video).frames
            shown = _even(frames) + _worst_pair(row, frames, real, portrait)
            parts.append(_strip(f"{clip}: {title(row.system)}", shown))
    return "".join(parts)


def _worst_pair(
    row: Row, frames: NDArray[np.uint8], real: NDArray[np.uint8] | None, portrait: RgbImage
) -> list[str]:
    """The worst frame of (T, H, W, 3), and beside it what it should have been."""
    found = worst(row, frames, real)
    if found is None:
        return []
    at, against_film = found
    when = f"{at / FPS:.2f} s"
    if against_film and real is not None:
        return [_figure(frames[at], f"worst, {when}", "worst"), _figure(real[at], f"real, {when}")]
    return [
        _figure(frames[at], f"least alike, {when}", "worst"),
        _figure(portrait, "the portrait"),
    ]


def worst(
    row: Row, frames: NDArray[np.uint8], real: NDArray[np.uint8] | None
) -> tuple[int, bool] | None:
    """The frame of (T, H, W, 3) that is farthest from the film's, and True; else of lowest CSIM, and False."""
    if real is not None and row.protocol == "pose-given" and real.shape[1:] == frames.shape[1:]:
        count = min(len(real), len(frames))
        away = [np.square(frames[i] - real[i].astype(np.float32)).mean() for i in range(count)]
        return int(np.argmax(away)), True
    if "csim" in row.series and np.isfinite(row.series["csim"]).any():
        return int(np.nanargmin(row.series["csim"])), False
    return None


def _even(frames: NDArray[np.uint8]) -> list[str]:
    """Frames at even places of (T, H, W, 3)."""
    at = np.linspace(0, len(frames) - 1, SHOWN_FRAMES).astype(int)
    return [_figure(frames[i], f"{i / FPS:.2f} s") for i in at]


def _strip(name: str, figures: list[str]) -> str:
    return f"<h3>{escape(name)}</h3><div class=strip>{''.join(figures)}</div>"


def _figure(rgb: RgbImage, caption: str, style: str = "") -> str:
    """A frame (H, W, 3) as an element that holds it, and what it is."""
    image = Image.fromarray(rgb)
    image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    coded = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure class="{style}"><img alt="" src="data:image/jpeg;base64,{coded}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
