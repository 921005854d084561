"""Evaluations of several streams' frames in one call of the networks.

What samples a frame is written for that frame alone, as a generator that yields the evaluations it
needs next and is sent their answers. `together` drives many of them: evaluations of equal structure
and shapes are one batch, whoever asked for them. A frame that needs fewer steps is simply done sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from engine.backends.cuda_graph import Tree, over
from engine.nets.conditions import Conditions, Guidance
from engine.nets.portraittalk import Caches

T = TypeVar("T")
# z_t (1, 4, h, w), t (1,), conditions, guidance, the frame cache before: every tensor has one row
Evaluation = tuple[Tensor, Tensor, Conditions, Guidance, Caches | None]
Answer = tuple[Tensor, Caches]  # noise (1, 4, h, w) and the frame cache after
Work = Generator[list[Evaluation], list[Answer], T]
Step = Callable[..., Answer]
MOST = 16  # rows of a call: eight streams with guidance


def together(step: Step, works: Sequence[Work[T]]) -> list[T]:
    """Run all `works` to their ends, with as few calls of `step` as may be; what each returns.

    Works ask with latents (1, 4, h, w), a call takes them as (B, 4, h, w); B is a power of two, so that
    a recorded `step` has few recordings.
    """
    done: dict[int, T] = {}
    asked: dict[int, list[Evaluation]] = {}

    def go_on(i: int, answers: list[Answer] | None) -> None:
        try:
            asked[i] = next(works[i]) if answers is None else works[i].send(answers)
        except StopIteration as end:
            done[i] = end.value
            asked.pop(i, None)

    for i in range(len(works)):
        go_on(i, None)
    while asked:
        answers = iter(_answered(step, [one for rows in asked.values() for one in rows]))
        for i, rows in list(asked.items()):
            go_on(i, [next(answers) for _ in rows])
    return [done[i] for i in range(len(works))]


def _answered(step: Step, rows: Sequence[Evaluation]) -> list[Answer]:
    alike: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault(_structure(row), []).append(i)
    answers: dict[int, Answer] = {}
    for members in alike.values():
        while members:
            size = 1 << (min(MOST, len(members)).bit_length() - 1)
            group, members = members[:size], members[size:]
            out = step(*_stacked([rows[i] for i in group]))
            for place, i in enumerate(group):
                answers[i] = over(out, lambda x, at=place: x[at : at + 1])  # type: ignore[misc]
    return [answers[i] for i in range(len(rows))]


def _structure(row: Evaluation) -> Any:
    """Equal for evaluations that can share a call; a tensor of several rows is shared by nobody."""
    return over(row, lambda x: (x.shape, x.dtype) if len(x) == 1 else id(x))


def _stacked(rows: Sequence[Tree]) -> Tree:
    """Trees of one row each as one tree; what is the same in all of them is not copied."""
    first = rows[0]
    if len(rows) == 1 or first is None:
        return first
    if isinstance(first, Tensor):
        if all(row is first for row in rows):
            return first.expand(len(rows), *first.shape[1:]) if len(first) == 1 else first
        return torch.cat(list(rows))
    if isinstance(first, tuple):
        return tuple(_stacked(branches) for branches in zip(*rows, strict=True))
    assert is_dataclass(first)
    assert not isinstance(first, type)
    return replace(
        first,
        **{f.name: _stacked([getattr(row, f.name) for row in rows]) for f in fields(first)},
    )
