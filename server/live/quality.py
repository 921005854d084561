"""Overload lowers quality, it never adds delay: which quality may the next frame have?

Pure: time is an argument, in seconds. The steps are first how often the mouth is painted anew, then
the size of the pictures, which receivers stretch, and last how often one is drawn at all; the sound stays
whole through all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.types import Quality

LADDER = (
    Quality(),
    Quality(paint_every=5),
    Quality(paint_every=5, half=True),
    Quality(paint_every=10, half=True),
    Quality(paint_every=10, draw_every=2, half=True),
    Quality(paint_every=10, draw_every=4, half=True),
    Quality(paint_every=16, draw_every=8, half=True),  # hardly more than listening
)
BEHIND_S = 0.18  # sound that waits so long for the engine: one step down
WORSE_S = 0.05  # grown by so much since: the next step down at once
SETTLE_S = 0.4  # not shrunk for so long: the next step down
CAUGHT_UP_S = 0.08  # sound that waits no longer than this: the engine keeps up
PATIENCE_S = 2.0  # it keeps up for so long: one step up
LONGEST_S = 64.0  # patience doubles up to this when a step up did not last
APART_S = 1.0  # a stream that took no step for so long counts for no other
RELAPSE_S = 8.0  # a step up that is taken back sooner did not last


class Ladder:
    """Goes down when the engine falls behind and up again when it has kept up for a while.

    A step up that does not last doubles the patience before the next, so that a machine that is
    just too slow does not swing between two qualities; a step up that lasts resets it.

    Streams that share an engine share its trouble: none stays more than a step better off than the worst,
    which is the first to go up again.
    """

    def __init__(self, steps: Sequence[Quality] = LADDER) -> None:
        self.level = 0
        self._steps = steps
        self._patience = PATIENCE_S
        self._behind = 0.0  # when last looked at, while falling
        self._look_at: float | None = None  # next; None: not falling
        self._good_since: float | None = None
        self._rose_at: float | None = None
        self._looked = -APART_S

    def level_at(self, now: float) -> int:
        """The step that counts for others: the best one, when this stream took none for a while."""
        return self.level if now - self._looked < APART_S else 0

    @property
    def quality(self) -> Quality:
        """What the frames may cost now."""
        return self._steps[self.level]

    def watch(self, behind_s: float, now: float, worst: int = 0) -> bool:
        """Take note of how long the oldest sound waited; True when the level changed.

        Args:
            worst: the worst level of the streams that share the engine.
        """
        self._looked = now
        if self._rose_at is not None and now - self._rose_at > RELAPSE_S:
            self._rose_at, self._patience = None, PATIENCE_S
        if behind_s > BEHIND_S:
            self._good_since = None
            return self._fall(behind_s, now)
        self._look_at = None
        if self.level < worst - 1:
            self.level, self._good_since = worst - 1, None
            return True
        if behind_s > CAUGHT_UP_S or self.level == 0:
            self._good_since = None
            return False
        self._good_since = now if self._good_since is None else self._good_since
        if now - self._good_since < self._patience or self.level < worst:
            return False
        self.level -= 1
        self._good_since, self._rose_at = None, now
        return True

    def _fall(self, behind_s: float, now: float) -> bool:
        """Step down, unless the last step still helps or there is none left."""
        if self._look_at is not None:
            if now < self._look_at and behind_s <= self._behind + WORSE_S:
                return False
            if behind_s < self._behind:
                self._behind, self._look_at = behind_s, now + SETTLE_S
                return False
        if self.level + 1 == len(self._steps):
            return False
        self.level += 1
        self._behind, self._look_at = behind_s, now + SETTLE_S
        if self._rose_at is not None:
            self._patience = min(2 * self._patience, LONGEST_S)
            self._rose_at = None
        return True
