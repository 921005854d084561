"""Which frames are painted afresh, moved or repeated, for several streams at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.face import arkit
from engine.face.landmarks import lip_gap
from engine.render.base import EnrolledFace, FrameCondition, Renderer
from engine.state import StreamState
from engine.types import FaceMotion, VideoFrame

OPENED = 0.012  # of the face height: lips that part further than painted are painted early
STILL = 0.01  # a mouth none of whose coefficients moved further is still as it was painted
STILL_FRAMES = 25  # for so long it is carried, where every second frame or fewer are painted

Aim = tuple[StreamState, FrameCondition]


class FrameDrawer:
    """Draws the next frame of each stream.

    Args:
        paint_every: frames from one painted afresh to the next, where a stream's quality names none.
    """

    def __init__(self, renderer: Renderer[Any, Any], paint_every: int) -> None:
        self._renderer, self._paint_every = renderer, paint_every

    def draw(self, aims: Sequence[Aim]) -> list[VideoFrame | None]:
        """The next frame of each stream; None where an earlier run drew it."""
        painted: list[Aim] = []
        moved: list[Aim] = []
        for state, condition in aims:
            index = condition.index
            again = state.shown is not None and index % state.quality.draw_every
            if index < state.draw_from or again:
                continue
            due = self._due(state, condition)
            (painted if due else moved).append((state, condition))
        fresh = self._paint(painted) | self._move(moved)
        return [
            None
            if condition.index < state.draw_from or state.shown is None
            else VideoFrame(
                condition.index, state.shown, id(state) in fresh, _motion(state, condition)
            )
            for state, condition in aims
        ]

    def _paint(self, aims: Sequence[Aim]) -> set[int]:
        """Draw frames afresh; returns the streams that show a new picture."""
        if not aims:
            return set()
        jobs = [(_face(state), state.cache, condition) for state, condition in aims]
        for (state, condition), (rgb, cache) in zip(aims, self._renderer.draw(jobs), strict=True):
            state.shown, state.cache = rgb, cache
            state.painted, state.parted = condition.index, float(lip_gap(condition.target))
            if condition.coefficients is not None:
                state.mouth = condition.coefficients[arkit.MOUTH]
        return {id(state) for state, _ in aims}

    def _move(self, aims: Sequence[Aim]) -> set[int]:
        """Move what was painted before; returns the streams that show a new picture."""
        if not aims:
            return set()
        jobs = [(_face(state), state.cache, condition) for state, condition in aims]
        fresh, lost = set(), []
        for (state, condition), rgb in zip(aims, self._renderer.draw_between(jobs), strict=True):
            if rgb is not None:
                state.shown = rgb
                fresh.add(id(state))
            elif state.shown is None:  # a run that was stopped goes on: there is none to repeat
                lost.append((state, condition))
        return fresh | self._paint(lost)

    def _due(self, state: StreamState, condition: FrameCondition) -> bool:
        """Whether a frame is painted.

        A carried crop cannot show what it was not painted with: lips that open do not wait for
        their turn, only for a third of it. Lips that are still need no new paint: the head moves them.
        """
        if state.painted is None:
            return True
        every = state.quality.paint_every or self._paint_every
        since = condition.index - state.painted
        opening = float(lip_gap(condition.target)) - state.parted > OPENED
        carried = every > 1 and since < STILL_FRAMES and self._renderer.carries
        turn = since >= every and not (carried and _is_still(state, condition))
        return turn or (opening and 3 * since >= every)


def _face(state: StreamState) -> EnrolledFace:
    """The face of a stream at the size that its frames are to have."""
    face: EnrolledFace = state.identity.face
    return face.half if state.quality.half and face.half is not None else face


def _is_still(state: StreamState, condition: FrameCondition) -> bool:
    if condition.coefficients is None or not len(state.mouth):
        return False
    moved = condition.coefficients[arkit.MOUTH] - state.mouth
    return bool(np.abs(moved).max() <= STILL)


def _motion(state: StreamState, condition: FrameCondition) -> FaceMotion | None:
    if condition.coefficients is None:
        return None
    return FaceMotion(condition.coefficients, condition.placement, state.parted)
