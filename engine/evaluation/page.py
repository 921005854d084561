"""`report/index.html`: one file, no network, with pictures. And `report.json` beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path

from engine.evaluation import published
from engine.evaluation.page_pictures import plots_of, strips_of
from engine.evaluation.page_tables import costs_table, every_table, paper_table
from engine.evaluation.run import Outcome, title
from engine.evaluation.systems import ABLATED, REFERENCES
from engine.evaluation.table import Report

STYLE = (Path(__file__).parent / "page.css").read_text()
PROTOCOL_WORDS = {
    "pose-given": "landmarks and head placement come from the real film, so each frame has one it should equal",
    "free": "everything comes from the sound, so head and lids may do other things than the real person did",
}
READING = (
    "<b>Grey rows</b> are no systems. <i>Real, re-encoded</i> is the film itself after a codec: nothing can be "
    "better. <i>Still portrait</i> is one picture with the sound, <i>real, wrong sound</i> the film with "
    "another sound: a measure that likes them says nothing about lips.",
    "<b>Rows in italics</b> are printed in the paper. They are of other data and other code, so they say "
    "which order to expect and not who is better.",
    "<b>–</b>: not of this protocol, or not delivered live. <b>not run</b>: could have been measured; why "
    "not is told at the end.",
)


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
        f"<p>{counted(len(data['clips']), 'clip')} ({escape(data['layout'])}), licence: {escape(data['licence'])}.</p>",
        f"<p class=made>{escape(made)}; {escape(versions)}; {data['seconds']:.0f} s.</p>",
        _reading(report),
        _fooled(data["fooled"]),
    ]  # fmt: skip
    for protocol in report.protocols:
        parts.append(f"<h2>Table 1, protocol: {escape(protocol)}</h2>")
        parts.append(
            paper_table(
                report,
                protocol,
                published.TABLE_1_COLUMNS,
                report.systems(protocol),
                published.TABLE_1,
            )
        )
    if ablations:
        parts.append(f"<h2>Table 2, ablations on drawn people</h2>{ablations}")
    for protocol in report.protocols:
        ablated = [s for s in ABLATED if s in report.systems(protocol)]
        if len(ablated) > 1:
            rows = [s for s in report.systems(protocol) if s in REFERENCES] + ablated
            parts.append(f"<h2>Table 2, ablations of tiny, protocol: {escape(protocol)}</h2>")
            parts.append(
                paper_table(report, protocol, published.TABLE_2_COLUMNS, rows, published.TABLE_2)
            )
    for protocol in report.protocols:
        parts.append(f"<h2>All measures, protocol: {escape(protocol)}</h2>")
        parts.append(every_table(report, protocol))
        parts.append(costs_table(report, protocol))
        parts.append(plots_of(outcome, report, protocol))
        parts.append(strips_of(outcome, protocol))
    parts.append(_said(outcome))
    return document(f"Evaluation of {data['set']}", "".join(parts))


def document(name: str, body: str) -> str:
    """A page of that name, as a file of its own."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{STYLE}</style><main>{body}</main></html>\n"
    )


def counted(number: int, what: str) -> str:
    """A number of things, in words that fit it."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _reading(report: Report) -> str:
    """What has to be known to read the tables."""
    told = [f"<b>{escape(p.capitalize())}</b>: {PROTOCOL_WORDS[p]}." for p in report.protocols]
    return f"<h2>How to read it</h2><ul>{''.join(f'<li>{line}</li>' for line in (*told, *READING))}</ul>"


def _fooled(lines: list[str]) -> str:
    """Which measures are not to be trusted here."""
    head = "<h2>What fools a measure</h2>"
    if not lines:
        return f"{head}<p>No measure is fooled by a still picture or the wrong sound.</p>"
    about = (
        "On these a still picture, or the film with the wrong sound, does better than what it is held against. "
        "They do not tell by themselves that a video is good."
    )
    return f"{head}<p>{about}</p>{_list(lines, 'columns')}"


def _list(lines: Iterable[str], style: str = "") -> str:
    return f'<ul class="{style}">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def _said(outcome: Outcome) -> str:
    """What was left out, and what was handled: each once, with whom it concerns."""
    bad = [f"{what}: {why}" for what, why in outcome.bad]
    about: dict[str, list[str]] = {}
    for row in outcome.rows:
        for note in dict.fromkeys(row.notes):
            about.setdefault(note, []).append(title(row.system))
    notes = [
        f"{note} ({', '.join(dict.fromkeys(whose)) if len(whose) < len(outcome.rows) else 'all'}; "
        f"{counted(len(whose), 'video')})"
        for note, whose in about.items()
    ]
    left = _list(bad) if bad else "<p>Nothing.</p>"
    handled = _list(notes) if notes else "<p>Nothing.</p>"
    return f"<h2>Left out: {len(bad)}</h2>{left}<h2>What was handled, and what was not run</h2>{handled}"
