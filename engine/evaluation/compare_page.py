"""The page of two reports side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from engine.evaluation.compare import Difference
from engine.evaluation.measures import COLUMNS
from engine.evaluation.page import counted, document
from engine.evaluation.systems import REFERENCES
from engine.evaluation.table import Report, shown

HEADS = ("", "", "A", "B", "B − A", "95 %", "clips")
SHOWN = ("B is", "A is")  # verdicts that say something
READING = (
    "B − A is the mean over the clips that both have, each paired with itself; 95 %: where that mean may lie by "
    "chance (bootstrap over the clips). Only where 0 lies outside of it a difference is shown. Many measures are "
    "looked at together: of twenty without any difference one shows one by chance."
)


def compare_page(a: tuple[Path, Report], b: tuple[Path, Report], rows: Sequence[Difference]) -> str:
    """The comparison of two reports, each with its folder, as a page."""
    parts = ["<h1>Two evaluations</h1>", _sides(a, b), f"<p>{escape(READING)}</p>"]
    own = [row for row in rows if row.system not in REFERENCES]
    told = [row for row in own if row.verdict.startswith(SHOWN)]
    few = max((row.pairs for row in own), default=0) < 2
    parts.append(
        "<p><b>One clip alone: nothing can be shown by it.</b></p>"
        if few
        else f"<p><b>{counted(len(told), 'difference')} shown, of {len(own)} looked at.</b></p>"
    )
    for (whose, protocol), group in groupby(own, lambda row: (row.whose, row.protocol)):
        parts.append(f"<h2>{escape(whose)}, protocol: {escape(protocol)}</h2>{_table(group)}")
    parts.append(_references([row for row in rows if row.system in REFERENCES]))
    return document("Two evaluations", "".join(parts))


def _sides(a: tuple[Path, Report], b: tuple[Path, Report]) -> str:
    """What A and B are, and what they do not have in common."""
    lines = []
    for name, (path, report) in (("A", a), ("B", b)):
        data = report.data
        lines.append(
            f"<b>{name}</b>: {escape(path.resolve().name)}: set {escape(str(data.get('set', '?')))}, "
            f"{counted(len(data.get('clips', [])), 'clip')}, commit {escape(str(data.get('commit', '?')))}"
        )
    told = [key for key in ("set", "clips", "commit", "versions", "hardware") if a[1].data.get(key) != b[1].data.get(key)]  # fmt: skip
    if told:
        lines.append(f"They differ in: {', '.join(told)}.")
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


def _references(rows: Sequence[Difference]) -> str:
    """Floor and ceiling: the same in both, or else the two were not measured alike."""
    apart = [row for row in rows if row.verdict != "the same"]
    if not rows:
        return ""
    if not apart:
        return "<h2>References</h2><p>The same in both, as they must be.</p>"
    about = "These are made of the films alone. Where they differ, the sets or the measures did."
    parts = [f"<h2>References that differ</h2><p>{about}</p>"]
    for (whose, protocol), group in groupby(apart, lambda row: (row.whose, row.protocol)):
        parts.append(f"<h3>{escape(whose)}, {escape(protocol)}</h3>{_table(group)}")
    return "".join(parts)


def _table(rows: Iterable[Difference]) -> str:
    lines = ["<tr>" + "".join(f"<th>{h}</th>" for h in HEADS) + "</tr>"]
    for row in rows:
        column = COLUMNS[row.name]
        head = f"{column.title} [{column.unit}]" if column.unit else column.title
        cells = [
            shown(row.a, row.name),
            shown(row.b, row.name),
            f"{row.mean:+.3g}",
            f"{row.low:+.3g} to {row.high:+.3g}" if row.pairs > 1 else "–",
            str(row.pairs) if row.pairs else "all",
        ]
        inner = "".join(f"<td>{escape(c)}</td>" for c in cells)
        style = "told" if row.verdict.startswith(SHOWN) else ""
        lines.append(
            f'<tr class="{style}"><th>{escape(head)}</th><td class=words>{escape(row.verdict)}</td>{inner}</tr>'
        )
    return f"<div class=wide><table>{''.join(lines)}</table></div>"
