"""This engine against that of another commit: processor time of a frame, stage by stage, in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import ROOT
from server.live.quality import LADDER

CHILD = Path(__file__).with_name("frames_child.py")
LADDER_BLOCK = 40  # frames: as often as the rarest picture of a step comes
BLOCK = 25  # frames of one side before it is the other's turn
WARM_UP = 2  # blocks of each side
KINDS = ("painted", "carried", "repeated")


class Side:
    """One engine in a process of its own.

    Args:
        root: of the checkout whose engine it runs.
        changes: of its settings.
        quality: of the stream.
    """

    def __init__(
        self, root: Path, portrait: Path, changes: dict[str, Any], quality: dict[str, int]
    ) -> None:
        words = (json.dumps(changes), json.dumps(quality))
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), str(portrait.resolve()), *words],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.threads = int(self._line().split()[1])

    def begin(self, frames: int) -> None:
        """Let it draw so many frames."""
        assert self._process.stdin
        self._process.stdin.write(f"{frames}\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """What those frames took."""
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def block(self, frames: int = BLOCK) -> dict[str, Any]:
        """Draw one block and say what it took."""
        self.begin(frames)
        return self.end()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine of {self._process.args} ended")
        return line


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A temporary worktree of `commit`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkout"
        _git("worktree", "add", "--detach", str(root), commit)
        try:
            yield root
        finally:
            _git("worktree", "remove", "--force", str(root))


def _git(*args: str) -> None:
    subprocess.run(["git", *args], cwd=ROOT, check=True, capture_output=True)


def compare(commit: str, portrait: Path, blocks: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of processor a frame, there and here, and their ratio: medians over blocks in turns."""
    with checkout(commit) as there:
        sides = [Side(root, portrait, changes, {}) for root in (there, ROOT)]
        taken: list[list[dict[str, Any]]] = [[], []]
        for turn in range(WARM_UP + blocks):
            for side, done in zip(sides, taken, strict=True):
                answer = side.block()
                if turn >= WARM_UP:
                    done.append(answer["rows"])
        for side in sides:
            side.close()
    means = [[_mean(rows) for rows in done] for done in taken]
    ratios = np.array(means[1]) / np.array(means[0])
    stages = [_stages(done) for done in taken]
    return {
        "against": commit,
        "settings": changes,
        "threads": [side.threads for side in sides],
        "blocks": blocks,
        "cpu_ms_a_frame": [round(float(np.median(side)), 2) for side in means],
        "ratio_p50": round(float(np.median(ratios)), 3),
        "ratio_quartiles": [round(float(x), 3) for x in np.percentile(ratios, [25, 75])],
        "stages_cpu_ms": {
            kind: {
                name: [side[kind].get(name) for side in stages]
                for name in dict.fromkeys(n for side in stages for n in side[kind])
            }
            for kind in KINDS
            if any(side[kind] for side in stages)
        },
    }


def _mean(rows: dict[str, list[dict[str, float]]]) -> float:
    """Milliseconds of a whole frame of one block, of whatever kind."""
    return 1000 * float(np.mean([row["whole frame"] for kind in KINDS for row in rows[kind]]))


def _stages(done: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median milliseconds of each stage in the frames of each kind."""
    out: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        spent: dict[str, list[float]] = defaultdict(list)
        for rows in done:
            for row in rows[kind]:
                for name, seconds in row.items():
                    spent[name].append(1000 * seconds)
        out[kind] = {name: round(float(np.median(times)), 2) for name, times in spent.items()}
    return out


def side_by_side(portrait: Path, blocks: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Seconds a frame of two engines at once over those of one alone: 1 on cores of their own, 2 on one."""
    both = [Side(ROOT, portrait, changes, {}) for _ in range(2)]
    ratios, alone_ms = [], []
    for turn in range(WARM_UP + blocks):
        alone = both[turn % 2].block()["seconds"]
        for side in both:
            side.begin(BLOCK)
        together = float(np.mean([side.end()["seconds"] for side in both]))
        if turn >= WARM_UP:
            ratios.append(together / alone)
            alone_ms.append(1000 * alone / BLOCK)
    for side in both:
        side.close()
    return {
        "two_at_once_over_one": round(float(np.median(ratios)), 2),
        "alone_ms_a_frame": round(float(np.median(alone_ms)), 2),
        "threads": both[0].threads,
    }


def ladder(portrait: Path, blocks: int) -> list[dict[str, Any]]:
    """Milliseconds of processor a frame at each step of the server's ladder, in turns, and over the first."""
    sides = [Side(ROOT, portrait, {}, asdict(quality)) for quality in LADDER]
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(WARM_UP + blocks):
        for side, done in zip(sides, taken, strict=True):
            rows = side.block(LADDER_BLOCK)["rows"]
            if turn >= WARM_UP:
                done.append(_mean(rows))
    for side in sides:
        side.close()
    steps = np.array(taken)
    return [
        {
            **asdict(quality),
            "cpu_ms_a_frame": round(float(np.median(own)), 2),
            "ratio_p50": round(float(np.median(own / steps[0])), 3),
        }
        for quality, own in zip(LADDER, steps, strict=True)
    ]


def print_comparison(result: dict[str, Any]) -> None:
    """The table for people."""
    there, here = result["cpu_ms_a_frame"]
    print(
        f"against {result['against']} {result['settings'] or ''}, threads {result['threads'][0]} and "
        f"{result['threads'][1]}: {here} ms of CPU a frame for {there}, {result['ratio_p50']} x "
        f"(quartiles {result['ratio_quartiles'][0]}-{result['ratio_quartiles'][1]})"
    )
    for kind, rows in result["stages_cpu_ms"].items():
        print(f"{kind + ' frames':<18}{'there':>8}{'here':>8}{'ratio':>8}")
        for name, (before, after) in rows.items():
            cells = ["-" if x is None else f"{x:.2f}" for x in (before, after)]
            ratio = f"{after / before:.2f}" if before and after else "-"
            print(f"  {name:<16}{cells[0]:>8}{cells[1]:>8}{ratio:>8}")
