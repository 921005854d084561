"""Table 2 from measured runs: means and spreads over seeds, paired differences, text and a part of a page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.evaluation import published
from engine.evaluation.ablations.variants import CHOICES, FULL, KNOWN, VARIANTS
from engine.evaluation.compare import interval
from engine.evaluation.measures import COLUMNS as MEASURES

FILE = "ablations.json"
# Beside the paper's columns: what says more on drawn faces.
BESIDE = ("kid", "m_lmd", "f_lmd", "mouth_r", "mouth_l1", "change", "flicker", "later", "found")
OWN = {
    "mouth_r": "Mouth, r",
    "mouth_l1": "Mouth, L1",
    "change": "Change a frame",
    "later": "Later",
}
REFERENCES = {"codec": "drawn, through the codec", "still": "still portrait"}
WHOLE = ("fid", "kid")  # of all people of a seed together
READ = ("adfd", "m_lmd", "f_lmd")  # by the face reader, in frames where it finds a face
COLUMNS = (*published.TABLE_2_COLUMNS, *BESIDE)
TITLES = {n: OWN[n] if n in OWN else MEASURES[n].title for n in COLUMNS}


@dataclass(frozen=True, slots=True)
class Results:
    """Rows of `ablations.json`: {"variant", "seed", "people": {name: values}, "whole": values}."""

    data: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read the results that `python -m engine.evaluation.ablations` wrote.

        Raises:
            DataError: there are none, or none of ours.
        """
        try:
            data = json.loads(path.read_text())
            for row in data["rows"]:
                row["variant"], row["seed"], row["people"], row["whole"]
            data["notes"], data["references"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} holds no results of `python -m engine.evaluation.ablations`: {error!r}"
            ) from error
        return cls(data)

    def write(self, path: Path) -> None:
        """Write them whole or not at all."""
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(self.data, indent=1) + "\n")
        part.replace(path)

    def of_seeds(self, variant: str, name: str) -> dict[int, float]:
        """A measure of a variant by seed: of the set, or the mean over its people."""
        found = {}
        for row in self.data["rows"]:
            if row["variant"] == variant and (value := of_row(row, name)) is not None:
                found[int(row["seed"])] = value
        return found

    def difference(self, variant: str, name: str) -> tuple[float, float, float, int] | None:
        """What the variant has more than the full system: mean, 95 % interval, pairs.

        A pair is a person of a seed; of FID and KID a seed. None with fewer than two.
        """
        rows = {(r["variant"], r["seed"]): r for r in self.data["rows"]}
        apart = []
        for (other, seed), row in rows.items():
            full = rows.get((FULL, seed))
            if other == variant and full is not None:
                apart += _apart(row, full, name)
        if len(apart) < 2:
            return None
        return float(np.mean(apart)), *interval(apart), len(apart)


def of_row(row: dict[str, Any], name: str) -> float | None:
    """A measure of one run; None where it was not measured of anybody."""
    if name in WHOLE:
        value = row["whole"].get(name)
        return None if value is None else float(value)
    values = [v[name] for v in row["people"].values() if name in v]
    return float(np.mean(values)) if values else None


def _apart(row: dict[str, Any], full: dict[str, Any], name: str) -> list[float]:
    if name in WHOLE:
        both = name in row["whole"] and name in full["whole"]
        return [row["whole"][name] - full["whole"][name]] if both else []
    pairs = ((v, full["people"].get(who, {})) for who, v in row["people"].items())
    return [a[name] - b[name] for a, b in pairs if name in a and name in b]


def cell(results: Results, variant: str, name: str) -> str:
    """Mean and spread over seeds, or in words why there is none."""
    values = list(results.of_seeds(variant, name).values())
    if all(row["variant"] != variant for row in results.data["rows"]):
        return "not trained"
    if not values:
        return none(name)
    mean = number(float(np.mean(values)))
    return mean if len(values) < 2 else f"{mean} ± {number(float(np.std(values, ddof=1)))}"


def none(name: str) -> str:
    """Why a run has no value of a measure."""
    return "no face" if name in READ else "not run"


def number(value: float) -> str:
    """With three digits that say something."""
    return (
        f"{value:.3f}"
        if abs(value) < 10
        else f"{value:.2f}"
        if abs(value) < 100
        else f"{value:.0f}"
    )


def columns(results: Results) -> list[str]:
    """The paper's, and those beside that anything was measured by."""
    rows = [*results.data["rows"], *results.data["references"].values()]
    return [
        n
        for n in COLUMNS
        if n in published.TABLE_2_COLUMNS or any(of_row(row, n) is not None for row in rows)
    ]


def shown_names(results: Results) -> list[str]:
    """The paper's variants, trained or not; where choices were trained, what was trained alone."""
    trained = {row["variant"] for row in results.data["rows"]}
    return [n for n in KNOWN if n in trained] if trained & CHOICES.keys() else list(VARIANTS)


def lines(results: Results) -> list[tuple[str, list[str]]]:
    """Rows of our table: ceiling and floor, the paper's order, then the choices that were trained."""
    wanted = columns(results)
    made = [
        (title, [_single(results.data["references"].get(key), n) for n in wanted])
        for key, title in REFERENCES.items()
    ]
    names = shown_names(results)
    made += [(KNOWN[name].title, [cell(results, name, n) for n in wanted]) for name in names]
    return made


def _single(row: dict[str, Any] | None, name: str) -> str:
    value = None if row is None else of_row(row, name)
    return none(name) if value is None else number(value)


def printed_lines(results: Results) -> list[tuple[str, list[str]]]:
    """The paper's rows of what is shown, in our columns; what it does not print is a dash."""
    names, asked = columns(results), shown_names(results)
    return [
        (VARIANTS[name].title, [published.printed(row[n]) if n in row else "–" for n in names])
        for name, row in published.TABLE_2["HDTF"].items()
        if name in asked
    ]


def told_differences(results: Results) -> list[str]:
    """A line a variant and measure: how far it is from the full system, and whether that is shown."""
    said = []
    for name, variant in KNOWN.items():
        for measure in COLUMNS:
            found = None if name == FULL else results.difference(name, measure)
            if found is not None:
                mean, low, high, pairs = found
                said.append(
                    f"{variant.title}, {TITLES[measure]}: {mean:+.3f} against full ({low:+.3f} to "
                    f"{high:+.3f}, {pairs} pairs): {verdict(results, name, measure)}"
                )
    return said


def verdict(results: Results, variant: str, name: str) -> str:
    """Whether a difference is shown: its interval leaves 0 out, and every seed has it the same way.

    Pairs of one seed come from the same two networks: they do not say what another training would give.
    """
    found = results.difference(variant, name)
    own, full = results.of_seeds(variant, name), results.of_seeds(FULL, name)
    ways = {bool(own[seed] > full[seed]) for seed in own.keys() & full.keys()}
    if len(own.keys() & full.keys()) < 2:
        return "one seed, nothing shown"
    if found is None or found[1] <= 0 <= found[2] or len(ways) > 1:
        return "no difference shown"
    return "differs"


def text(results: Results) -> str:
    """The table for a terminal, the printed numbers below it, and the paired differences."""
    heads = [TITLES[n] for n in columns(results)]
    ours, theirs = lines(results), printed_lines(results)
    about = f"{published.PAPER} prints, on HDTF (other data)"
    rows = [("", heads), *ours, (about, [""] * len(heads)), *theirs]
    first = max(len(name) for name, _ in [*ours, *theirs])
    wide = [max(len(cells[i]) for _, cells in rows) for i in range(len(heads))]
    table = [
        name.ljust(first) + "".join(f"  {c:>{w}}" for c, w in zip(cells, wide, strict=True))
        for name, cells in rows
    ]
    return "\n".join([*table, "", *told_differences(results), *results.data["notes"]])


def section(results: Results, picture: str) -> str:
    """The table as a part of a page.

    Args:
        picture: an element that shows all variants; may be empty.
    """
    wanted = columns(results)
    span = len(wanted) + 1
    head = "".join(f"<th>{escape(TITLES[n])}</th>" for n in wanted)
    about = f"{published.PAPER} prints, on HDTF (other data)"
    count = len(REFERENCES)
    rows = [
        f"<tr><th></th>{head}</tr>",
        *_html(lines(results)[:count], "floor"),
        *_html(lines(results)[count:], ""),
        f'<tr class="other"><th colspan="{span}">{escape(about)}</th></tr>',
        *_html(printed_lines(results), "other"),
    ]
    said, apart = (
        "".join(f"<li>{escape(line)}</li>" for line in told)
        for told in (results.data["notes"], told_differences(results))
    )
    more = f"<details><summary>Differences from the full system</summary><ul>{apart}</ul></details>"
    return f"<div class=wide><table>{''.join(rows)}</table></div>{picture}<ul>{said}</ul>{more}"


def _html(rows: Iterable[tuple[str, list[str]]], style: str) -> list[str]:
    return [
        f'<tr class="{style}"><th>{escape(name)}</th>'
        + "".join(f"<td>{escape(c)}</td>" for c in cells)
        + "</tr>"
        for name, cells in rows
    ]
