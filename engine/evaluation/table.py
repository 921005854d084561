"""What a report says: means of each system, and in words where a measure is fooled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.config import FPS
from engine.evaluation.measures import COLUMNS
from engine.evaluation.measures.costs import Cost, mean, total
from engine.evaluation.run import Outcome, title
from engine.evaluation.systems import REFERENCES

# Beside what `measures` tells: how the video came.
DELIVERY = {
    "latency_ms": ("Latency", "ms, from speech sent to the frame that shows it, median"),
    "held_share": ("Frames not shown", "share; the one before stands in"),
}
APART, SURE = 2, 0.15  # frames between a film's lips and its sound; confidence that says so
SAME = 0.02  # of a value: nearer ones are not told apart


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome as data: what `report.json` holds."""

    data: Mapping[str, Any]

    @classmethod
    def of(cls, outcome: Outcome, about: Mapping[str, Any], seconds: float) -> Report:
        """Gather an outcome, and say where a measure is fooled."""
        rows = [
            {
                "system": row.system,
                "protocol": row.protocol,
                "clip": row.clip,
                "values": {n: _finite(v) for n, v in row.values.items()},
                "notes": row.notes,
                "cost": total(row.costs.values()),
                "costs": row.costs,
            }
            for row in outcome.rows
        ]
        sets = {
            key: {n: _finite(v) for n, v in found.items()} for key, found in outcome.sets.items()
        }
        data: dict[str, Any] = {
            "set": outcome.set_name,
            "licence": outcome.licence,
            "layout": outcome.layout,
            "clips": outcome.clips,
            "rows": rows,
            "sets": sets,
            "bad": [{"what": what, "why": why} for what, why in outcome.bad],
            "seconds": round(seconds, 1),
            "measuring": _dearest(outcome, rows),
            **about,
        }
        made = cls(data)
        data["fooled"] = [word for p in made.protocols for word in fooled(made, p)]
        data["fooled"] += out_of_step(made)
        return made

    @property
    def protocols(self) -> list[str]:
        """Those with rows."""
        return list(dict.fromkeys(row["protocol"] for row in self.data["rows"]))

    def systems(self, protocol: str) -> list[str]:
        """Those with rows, floor and ceiling first."""
        rows = self.data["rows"]
        return list(dict.fromkeys(r["system"] for r in rows if r["protocol"] == protocol))

    def each(self, system: str, protocol: str, name: str) -> dict[str, float]:
        """A measure by clip; clips without it are left out."""
        return {
            row["clip"]: float(row["values"][name])
            for row in self.data["rows"]
            if (row["system"], row["protocol"]) == (system, protocol) and name in row["values"]
        }

    def value(self, system: str, protocol: str, name: str) -> float | None:
        """A measure of the set, else the mean over its clips; None where it was not measured."""
        found = self.data["sets"].get(f"{system}|{protocol}", {}).get(name)
        if found is not None:
            return float(found)
        values = list(self.each(system, protocol, name).values())
        return float(np.mean(values)) if values else None

    def costs(self, protocol: str, system: str) -> dict[str, Cost]:
        """What each measure of a system's videos cost: seconds of a video, most memory of any."""
        rows = [r["costs"] for r in self.data["rows"] if (r["protocol"], r["system"]) == (protocol, system)]  # fmt: skip
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: mean([row[name] for row in rows if name in row]) for name in names}

    def columns(self, protocol: str) -> list[str]:
        """Measures that any system has in this protocol, in the order of `COLUMNS`."""
        told = [n for n, c in COLUMNS.items() if c.protocol in (None, protocol)]
        named = [*told, *DELIVERY]
        return [
            n for n in named if any(self.value(s, protocol, n) is not None for s in self.systems(protocol))
        ]  # fmt: skip


def _dearest(outcome: Outcome, rows: list[dict[str, Any]]) -> dict[str, float]:
    """What measuring the dearest video cost, how long that is, and the most memory of any."""
    each = [(row["cost"]["seconds"], i) for i, row in enumerate(rows)]
    if not each:
        return {}
    seconds, i = max(each)
    return {
        "seconds": seconds,
        "cpu_s": rows[i]["cost"]["cpu_s"],
        "of_video_s": len(outcome.rows[i].series.get("csim", [])) / FPS,
        "peak_mb": max(row["cost"]["peak_mb"] for row in rows),
    }


def _finite(value: float) -> float | str:
    """A number as JSON knows it: infinite ones and none are words."""
    return float(value) if math.isfinite(value) else str(value)


def better(name: str, a: float, b: float, real: float | None) -> bool:
    """Whether `a` is better than `b` by more than `SAME`; near: to what the real clip has."""
    way = COLUMNS[name].better
    if way == "near":
        if real is None:
            return False
        a, b = -abs(a - real), -abs(b - real)
    elif way == "lower":
        a, b = -a, -b
    if math.isinf(a) or math.isinf(b):
        return a > b
    return a - b > SAME * max(abs(a), abs(b), 1e-9)


def fooled(report: Report, protocol: str) -> list[str]:
    """In words: measures on which a still picture or the wrong sound wins."""
    words = []
    systems = [s for s in report.systems(protocol) if s not in REFERENCES]
    for name in report.columns(protocol):
        if name in DELIVERY:
            continue
        shown = COLUMNS[name].title
        real = report.value("re-encode", protocol, name)
        still = report.value("still", protocol, name)
        wrong = report.value("wrong-sound", protocol, name)
        if still is not None:
            beaten = [
                title(s)
                for s in systems
                if (v := report.value(s, protocol, name)) is not None
                and better(name, still, v, real)
            ]
            if beaten:
                whom = "every system" if len(beaten) == len(systems) > 1 else ", ".join(beaten)
                words.append(f"{shown} ({protocol}): the still portrait beats {whom}.")
            if real is not None and better(name, still, real, real):
                words.append(f"{shown} ({protocol}): the still portrait beats the real clip.")
        if wrong is not None and real is not None and better(name, wrong, real, real):
            words.append(f"{shown} ({protocol}): the wrong sound beats the right one.")
    return words


def out_of_step(report: Report) -> list[str]:
    """In words: films whose own lips and sound are apart, which every measure of lips against sound feels."""
    offsets = report.each("re-encode", "free", "own_sync_offset")
    sure = report.each("re-encode", "free", "own_sync_c")
    return [
        f"{COLUMNS['own_sync_offset'].title} (free): the lips of the film {clip} are {abs(late):.0f} frames "
        f"{'before' if late < 0 else 'after'} its sound, by this project's expert; if they are, "
        f"`sound_late_s = {-late / FPS:.2f}` in set.toml puts it right."
        for clip, late in offsets.items()
        if abs(late) >= APART and sure[clip] >= SURE
    ]


def shown(value: float | None, name: str) -> str:
    """A number for people; "not run" where there is none."""
    if value is None:
        return "not run"
    if math.isinf(value):
        return "∞"
    if name.endswith("_ms") or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:z.3f}" if abs(value) < 10 else f"{value:.2f}"
