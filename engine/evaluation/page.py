"""`report/index.html`: one file, no network, with pictures. And `report.json` beside it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.evaluation import plots, published
from engine.evaluation.measures import COLUMNS, Clip
from engine.evaluation.measures.costs import total
from engine.evaluation.run import Outcome, Row, title
from engine.evaluation.systems import ABLATED, REFERENCES
from engine.evaluation.table import DELIVERY, Report, shown
from engine.types import RgbImage

STYLE = (Path(__file__).parent / "page.css").read_text()
SPREAD = ("psnr", "ssim", "lpips_alex", "m_lmd_centred", "csim", "adfd", "lip_gap_r", "own_sync_c")
OVER_TIME = ("psnr", "csim", "lpips_alex")
TILE = 160  # pixels of a picture's side
SHOWN_FRAMES = 6


def write_report(outcome: Outcome, report: Report, out: Path, ablations: str = "") -> None:
    """Write `index.html` and `report.json` into `out`; `ablations` is a part of the page of their own."""
    (out / "report.json").write_text(json.dumps(report.data, indent=1, ensure_ascii=False) + "\n")
    (out / "index.html").write_text(page(outcome, report, ablations), encoding="utf-8")


def page(outcome: Outcome, report: Report, ablations: str = "") -> str:
    """The whole page."""
    data = report.data
    made = f"{data['hardware']['cpu']}, {data['hardware']['cores']} cores; commit {data['commit']}"
    versions = " ".join(f"{n} {v}" for n, v in data["versions"].items())
    parts = [
        f"<h1>Evaluation of {escape(data['set'])}</h1>",
        f"<p>{len(data['clips'])} clips ({escape(data['layout'])}), licence: {escape(data['licence'])}."
        f"<br>{escape(made)}; {escape(versions)}; {data['seconds']:.0f} s.</p>",
        _words("What fools a measure", data["fooled"], "No measure is fooled by a still or wrong sound."),
    ]  # fmt: skip
    for protocol in report.protocols:
        parts.append(f"<h2>Table 1, protocol: {escape(protocol)}</h2>")
        parts.append(_table(report, protocol, published.TABLE_1_COLUMNS, report.systems(protocol), published.TABLE_1))  # fmt: skip
    if ablations:
        parts.append(f"<h2>Table 2, the paper's ablations on drawn people</h2>{ablations}")
    for protocol in report.protocols:
        ablated = [s for s in ABLATED if s in report.systems(protocol)]
        if len(ablated) > 1:
            rows = [s for s in report.systems(protocol) if s in REFERENCES] + ablated
            parts.append(f"<h2>Table 2, ablations of tiny, protocol: {escape(protocol)}</h2>")
            parts.append(_table(report, protocol, published.TABLE_2_COLUMNS, rows, published.TABLE_2))  # fmt: skip
    for protocol in report.protocols:
        parts.append(f"<h2>All measures, protocol: {escape(protocol)}</h2>")
        parts.append(_every(report, protocol))
        parts.append(_costs(report, protocol))
        parts.append(_plots(outcome, report, protocol))
        parts.append(_strips(outcome, protocol))
    parts.append(_said(outcome))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Evaluation of {escape(data['set'])}</title><style>{STYLE}</style>"
        f"<main>{''.join(parts)}</main></html>\n"
    )


def _table(
    report: Report,
    protocol: str,
    columns: Iterable[str],
    systems: Iterable[str],
    beside: dict[str, dict[str, dict[str, float]]],
) -> str:
    """Ours in the paper's columns, what was delivered in the same row, and the printed numbers below."""
    wanted = list(columns)
    delivery = [n for n in DELIVERY if n in report.columns(protocol)]
    heads = [COLUMNS[n].title for n in wanted] + [DELIVERY[n][0] for n in delivery]
    rows = [_row("", heads, "th")]
    for system in systems:
        cells = [shown(report.value(system, protocol, n), n) for n in wanted]
        told = [report.value(system, protocol, n) for n in delivery]
        cells += ["–" if v is None else shown(v, n) for v, n in zip(told, delivery, strict=True)]
        rows.append(_row(title(system), cells, "td", "floor" if system in REFERENCES else ""))
    for data, rows_printed in beside.items():
        about = f"{published.PAPER} prints, on {data} (other data)"
        span = len(heads) + 1
        rows.append(f'<tr class="other"><th colspan="{span}">{escape(about)}</th></tr>')
        for name, numbers in rows_printed.items():
            cells = [published.printed(numbers[n]) for n in wanted] + ["–"] * len(delivery)
            rows.append(_row(name, cells, "td", "other"))
    return f"<div class=wide><table>{''.join(rows)}</table></div>"


def _row(head: str, cells: Iterable[str], kind: str, style: str = "") -> str:
    inner = "".join(f"<{kind}>{escape(c)}</{kind}>" for c in cells)
    return f'<tr class="{style}"><th>{escape(head)}</th>{inner}</tr>'


def _every(report: Report, protocol: str) -> str:
    """All measures, a row each, a column a system."""
    systems = report.systems(protocol)
    rows = [_row("", [*map(title, systems), "better"], "th")]
    for name in report.columns(protocol):
        if name in DELIVERY:
            head, unit, way = *DELIVERY[name], "lower"
        else:
            column = COLUMNS[name]
            head, unit, way = column.title, column.unit, column.better
        cells = [shown(v, name) if (v := report.value(s, protocol, name)) is not None else "–" for s in systems]  # fmt: skip
        ways = {"near": "near real"}.get(way, way)
        rows.append(_row(f"{head} [{unit}]" if unit else head, [*cells, ways], "td"))
    return f"<div class=wide><table>{''.join(rows)}</table></div>"


def _costs(report: Report, protocol: str) -> str:
    """What measuring cost: a row each measure, a column a system."""
    systems = report.systems(protocol)
    each = {system: report.costs(protocol, system) for system in systems}
    each = {s: {**costs, "all measures": total(costs.values())} for s, costs in each.items()}
    names = list(dict.fromkeys(name for costs in each.values() for name in costs))
    names.sort(key="all measures".__eq__)
    rows = [_row("", map(title, systems), "th")]
    for name in names:
        told = [each[s].get(name) for s in systems]
        cells = ["–" if c is None else f"{c['seconds']:.1f} s ({c['cpu_s']:.1f}), {c['peak_mb']:.0f} MB" for c in told]  # fmt: skip
        rows.append(_row(name, cells, "td"))
    about = (
        "Seconds of a video (of one processor in brackets), and the most memory that the whole process held meanwhile. "
        "Pictures that are the same are read and compared once: each row tells what that cost then."
    )
    most = report.data["measuring"]
    about += f" The dearest: {most['of_video_s']:.1f} s of video in {most['seconds']:.0f} s ({most['cpu_s']:.0f}), at most {most['peak_mb']:.0f} MB."  # fmt: skip
    return f"<h3>What measuring cost</h3><p>{about}</p><div class=wide><table>{''.join(rows)}</table></div>"


def _plots(outcome: Outcome, report: Report, protocol: str) -> str:
    systems = report.systems(protocol)
    drawn = []
    for name in SPREAD:
        each = {title(s): list(report.each(s, protocol, name).values()) for s in systems}
        drawn.append(plots.spread(f"{COLUMNS[name].title}: each clip", each))
    rows = [r for r in outcome.rows if r.protocol == protocol]
    for clip in outcome.clips[:1]:
        here = [r for r in rows if r.clip == clip]
        for name in OVER_TIME:
            series = {title(r.system): r.series[name] for r in here if name in r.series and r.system != "still"}  # fmt: skip
            drawn.append(plots.lines(f"{COLUMNS[name].title} over time [s], {clip}", series))
        drawn.append(_lips(outcome, here, clip))
    for name in ("lpips_alex", "m_lmd_centred", "lip_gap_r"):
        points = {
            title(s): (late, value)
            for s in systems
            if (late := report.value(s, protocol, "latency_ms")) is not None
            and (value := report.value(s, protocol, name)) is not None
        }
        drawn.append(plots.scatter(f"{COLUMNS[name].title} beside latency [ms]", points))
    return f"<div class=plots>{''.join(drawn)}</div>"


def _lips(outcome: Outcome, rows: list[Row], clip: str) -> str:
    """Lip gaps over the loudness of the sound that moved them."""
    series = {title(r.system): r.series["lip_gap"] for r in rows if "lip_gap" in r.series and r.system not in REFERENCES}  # fmt: skip
    real = next((r.series["lip_gap_real"] for r in rows if "lip_gap_real" in r.series), None)
    if real is not None:
        series["real"] = real
    if not series:
        return ""
    pcm = outcome.prepared[clip].pcm
    loud = np.sqrt(np.square(pcm[: len(pcm) // 640 * 640].reshape(-1, 640)).mean(1))
    widest = max(float(np.nanmax(np.asarray(s, float))) for s in series.values())
    series["sound (rms, scaled)"] = list(loud / (float(loud.max()) or 1) * widest)
    return plots.lines(f"Lip gap against sound over time [s], {clip}", series)


def _strips(outcome: Outcome, protocol: str) -> str:
    """Frames at even places, and the worst one of each system, beside the film's."""
    parts = []
    for clip in outcome.clips[:4]:
        rows = [r for r in outcome.rows if (r.protocol, r.clip) == (protocol, clip)]
        film = outcome.prepared[clip].real
        real = Clip.read(film).frames if film is not None else None
        if real is not None:
            parts.append(_strip(f"{clip}: real", real, None, None))
        for row in rows:
            if row.system in ("re-encode", "wrong-sound"):
                continue
            frames = Clip.read(row.video).frames
            parts.append(_strip(f"{clip}: {title(row.system)}", frames, worst(row, frames, real), real))  # fmt: skip
    return "".join(parts)


def worst(row: Row, frames: NDArray[np.uint8], real: NDArray[np.uint8] | None) -> int | None:
    """The frame of (T, H, W, 3) that is farthest from the film's, or has the lowest CSIM without one."""
    if real is not None and row.protocol == "pose-given" and real.shape[1:] == frames.shape[1:]:
        count = min(len(real), len(frames))
        away = [np.square(frames[i] - real[i].astype(np.float32)).mean() for i in range(count)]
        return int(np.argmax(away))
    if "csim" in row.series and np.isfinite(row.series["csim"]).any():
        return int(np.nanargmin(row.series["csim"]))
    return None


def _strip(name: str, frames: NDArray[np.uint8], bad: int | None, real: NDArray[np.uint8] | None) -> str:  # fmt: skip
    """Pictures of (T, H, W, 3), then the worst one and what the film (T, H, W, 3) shows there."""
    at = np.linspace(0, len(frames) - 1, SHOWN_FRAMES).astype(int)
    shown_ones = [f"<figure>{picture(frames[i])}<figcaption>{i / 25:.2f} s</figcaption></figure>" for i in at]  # fmt: skip
    if bad is not None:
        shown_ones.append(f"<figure class=worst>{picture(frames[bad])}<figcaption>worst, {bad / 25:.2f} s</figcaption></figure>")  # fmt: skip
        if real is not None and bad < len(real):
            shown_ones.append(f"<figure>{picture(real[bad])}<figcaption>real there</figcaption></figure>")  # fmt: skip
    return f"<h3>{escape(name)}</h3><div class=strip>{''.join(shown_ones)}</div>"


def picture(rgb: RgbImage) -> str:
    """A frame (H, W, 3) as an element that holds it."""
    image = Image.fromarray(rgb)
    image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _words(head: str, lines: list[str], none: str) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(head)}</h2>" + (f"<ul>{items}</ul>" if lines else f"<p>{escape(none)}</p>")


def _said(outcome: Outcome) -> str:
    """What was left out and what was handled, each once and counted."""
    bad = [f"{what}: {why}" for what, why in outcome.bad]
    counted: dict[str, int] = {}
    for row in outcome.rows:
        for note in dict.fromkeys(row.notes):
            line = f"{title(row.system)}: {note}"
            counted[line] = counted.get(line, 0) + 1
    notes = [f"{line} ({count} videos)" for line, count in counted.items()]
    return _words(f"Left out: {len(bad)}", bad, "Nothing.") + _words("Handled", notes, "Nothing.")
