"""Which sample of a line of sound leaves when. Pure: time is an argument, in seconds."""

from __future__ import annotations

from collections import deque

from server.sound.intake import PACKET_SAMPLES, SOUND_RATE_HZ

PACKET_S = PACKET_SAMPLES / SOUND_RATE_HZ
FIRST_S = 0.03  # what a picture is thought to take before the first one came
WINDOW = 25  # pictures whose needs decide the delay
MARGIN_S = 0.002  # time to spare
BURST_S = 0.04  # what the engine takes for a look-ahead that comes at once
MAX_EXTRA_S = 0.12  # the most that pictures may delay the sound beyond the look-ahead


class Clock:
    """Which sample of the line leaves when."""

    def __init__(self, lookahead_s: float) -> None:
        self.base: float | None = None  # when sample 0 would leave
        self._lookahead = lookahead_s
        self._fed = 0.0  # when sample 0 would have been fed, by the newest
        self._needs: deque[float] = deque(maxlen=WINDOW)  # bases that pictures would have liked

    def leave_at(self, place: int) -> float | None:
        """When the sample leaves; None before any was fed."""
        return None if self.base is None else self.base + place / SOUND_RATE_HZ

    def latest_at(self, place: int) -> float | None:
        """When the sample leaves if pictures delay the line as much as they may."""
        if self.base is None:
            return None
        return self._fed + self._lookahead + MAX_EXTRA_S + place / SOUND_RATE_HZ

    def fed(self, place: int, now: float) -> None:
        """Take note that the sample is fed at `now`."""
        self._fed = now - place / SOUND_RATE_HZ
        if self.base is None:
            self.base = self._fed + self._lookahead + FIRST_S

    def restart(self) -> None:
        """Nothing was fed for a while: what is fed next sets the clock anew."""
        self.base = None
        self._needs.clear()

    def ready(self, place: int, now: float) -> None:
        """Take note that the picture of that place is ready at `now`."""
        self._needs.append(now + MARGIN_S - place / SOUND_RATE_HZ)

    def gap(self) -> float:
        """By how much the line should leave later (above 0) or sooner (below)."""
        if not self._needs or self.base is None:
            return 0.0
        wanted = min(max(self._needs), self._fed + self._lookahead + MAX_EXTRA_S)
        if wanted < self.base and len(self._needs) < WINDOW:
            return 0.0
        return wanted - self.base

    def shift(self, seconds: float) -> None:
        """Let the line leave so much later."""
        assert self.base is not None
        self.base += seconds

    def spare(self, place: int, now: float) -> float:
        """How long before the sample leaves it could have its picture, were it and its look-ahead fed now."""
        assert self.base is not None
        takes = self.base - self._fed - self._lookahead
        return self.base + place / SOUND_RATE_HZ - now - takes - BURST_S

    def leap(self, seconds: float) -> None:
        """Let the line leave so much sooner, what is fed and its pictures with it."""
        self.shift(-seconds)
        self._needs = deque((need - seconds for need in self._needs), maxlen=WINDOW)
