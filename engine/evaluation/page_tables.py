"""Tables of the report's page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from engine.evaluation import published
from engine.evaluation.measures import COLUMNS
from engine.evaluation.measures.costs import total
from engine.evaluation.run import title
from engine.evaluation.systems import REFERENCES
from engine.evaluation.table import DELIVERY, Report, shown

NONE = "–"
WAYS = {"near": "near real"}


def paper_table(
    report: Report,
    protocol: str,
    columns: Sequence[str],
    systems: Iterable[str],
    beside: dict[str, dict[str, dict[str, float]]],
) -> str:
    """Ours in the paper's columns, what was delivered in the same row, and the printed numbers below."""
    delivery = [n for n in DELIVERY if n in report.columns(protocol)]
    wanted = [*columns, *delivery]
    heads = [DELIVERY[n][0] if n in DELIVERY else COLUMNS[n].title for n in wanted]
    rows = [_row("", map(escape, heads), "th")]
    for system in systems:
        cells = [cell(report, system, protocol, n) for n in wanted]
        rows.append(_row(title(system), cells, "td", "floor" if system in REFERENCES else ""))
    for data, printed in beside.items():
        about = f"{published.PAPER} prints, on {data} (other data)"
        span = len(heads) + 1
        rows.append(f'<tr class="other"><th colspan="{span}">{escape(about)}</th></tr>')
        for name, numbers in printed.items():
            cells = [published.printed(numbers[n]) if n in numbers else NONE for n in wanted]
            rows.append(_row(published.words(name), cells, "td", "other"))
    return f"{_wide(rows)}<p class=made>{escape(_frames(report, protocol))}</p>"


def cell(report: Report, system: str, protocol: str, name: str) -> str:
    """A value for people; a dash where this protocol has none."""
    value = report.value(system, protocol, name)
    other = name in DELIVERY or COLUMNS[name].protocol not in (None, protocol)
    return NONE if value is None and other else shown(value, name)


def _frames(report: Report, protocol: str) -> str:
    """Of how many frames FID and KID are."""
    told = [
        (int(found["n_frames"]), int(found["n_frames_real"]))
        for key, found in report.data["sets"].items()
        if key.endswith(f"|{protocol}") and "n_frames_real" in found
    ]
    if not told:
        return ""
    ours, real = min(told)
    few = ", far fewer than FID wants (thousands): of the same order only" if ours < 2048 else ""
    return f"FID and KID are of {ours} frames a system against {real} of the film{few}."


def every_table(report: Report, protocol: str) -> str:
    """All measures, a row each, a column a system."""
    systems = report.systems(protocol)
    rows = [_row("", ["better", *(escape(title(s)) for s in systems)], "th")]
    for name in report.columns(protocol):
        if name in DELIVERY:
            head, unit, way, about = DELIVERY[name][0], "", "lower", DELIVERY[name][1]
        else:
            column = COLUMNS[name]
            head, unit, way, about = column.title, column.unit, column.better, column.about
        cells = [
            NONE if (v := report.value(s, protocol, name)) is None else shown(v, name)
            for s in systems
        ]
        named = f"{head} [{unit}]" if unit else head
        rows.append(_row(named, [WAYS.get(way, way), *cells], "td", about=about))
    return _wide(rows)


def costs_table(report: Report, protocol: str) -> str:
    """What measuring cost: a row each measure, a column a system."""
    systems = report.systems(protocol)
    each = {system: report.costs(protocol, system) for system in systems}
    each = {s: {**costs, "all measures": total(costs.values())} for s, costs in each.items()}
    names = list(dict.fromkeys(name for costs in each.values() for name in costs))
    names.sort(key="all measures".__eq__)
    rows = [_row("", (escape(title(s)) for s in systems), "th")]
    for name in names:
        told = [each[s].get(name) for s in systems]
        cells = [
            NONE if c is None else f"{c['seconds']:.1f} s ({c['cpu_s']:.1f}), {c['peak_mb']:.0f} MB"
            for c in told
        ]
        rows.append(_row(name, cells, "td"))
    most = report.data["measuring"]
    about = (
        "Seconds of a video (of one processor in brackets), and the most memory that the whole process held "
        "meanwhile. Pictures that are the same are read and compared once: each row tells what that cost then. "
        f"The dearest: {most['of_video_s']:.1f} s of video in {most['seconds']:.0f} s ({most['cpu_s']:.0f}), at "
        f"most {most['peak_mb']:.0f} MB."
    )
    return f"<details><summary>What measuring cost</summary><p>{about}</p>{_wide(rows)}</details>"


def _row(head: str, cells: Iterable[str], kind: str, style: str = "", about: str = "") -> str:
    """A row of a table; `cells` are HTML."""
    inner = "".join(f"<{kind}>{c}</{kind}>" for c in cells)
    small = f"<small>{escape(about)}</small>" if about else ""
    return f'<tr class="{style}"><th>{escape(head)}{small}</th>{inner}</tr>'


def _wide(rows: Iterable[str]) -> str:
    return f"<div class=wide><table>{''.join(rows)}</table></div>"
