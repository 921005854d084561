"""How evenly the packets of one microphone come, and the delay that evens them out. Pure."""

from __future__ import annotations

from collections import deque
from math import inf

SOUND_RATE_HZ = 48_000
WINDOW = 200  # packets looked back on: 4 s at 20 ms a packet
LATE_SHARE = 0.01  # of the packets may come later than the delay covers
EVEN_S = 0.020  # packets need no delay if all but `UNEVEN_SHARE` are as even as this
UNEVEN_SHARE = 0.03
WAITED_FOR_S = 0.050  # and all but `LATE_SHARE` come before silence would take over
LONGEST_DELAY_S = 0.2
SHRINK_S = 0.0003  # the delay falls by no more with each packet, 15 ms a second,
SHRINK_SHARE = 0.003  # or by this share of it
PACKET_S = 0.020  # the missing one is older than the one behind it by so much
PATIENCE_S = 0.010  # what is missing is waited for so much longer than the delay
BURST_S = 0.005  # packets that come together after a stall are late once


class Arrivals:
    """Statistics of the packets that came.

    A packet's lateness is how much longer it took than the quickest of the last `WINDOW`. The delay
    rises at once to what all but `LATE_SHARE` of them need, and falls slowly; it is 0 for packets
    that come evenly. When the way itself grows longer, the delay has already grown with it, and
    is that much shorter as soon as the longer way is all that is remembered. Bound: `WINDOW` packets.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0  # from the earliest a packet can come until its sound is to be played
        self.lost = 0  # packets that never came
        self.late = 0  # packets that came after their time was over
        self._quickest = 0.0
        self._came = 0.0
        self._transits: deque[float] = deque(maxlen=WINDOW)
        self._counted: deque[float] = deque(maxlen=WINDOW)  # of a burst only the longest
        self._before: list[float] = []  # lateness of the packets before a restart

    def add(self, pts: int, came: float) -> None:
        """Note that the packet with time stamp `pts` (at 48 kHz) came at `came` seconds."""
        transit = came - pts / SOUND_RATE_HZ
        before = self._quickest if self._transits else transit
        self._transits.append(transit)
        self._quickest = min(self._transits)
        if self._counted and abs(came - self._came) < BURST_S:
            transit = max(transit, self._counted.pop())
            self._counted.append(-inf)
        self._counted.append(transit)
        self._came = came
        fall = max(SHRINK_S, SHRINK_SHARE * self.delay_s) + max(0.0, self._quickest - before)
        self.delay_s = max(self._wanted(), self.delay_s - fall)

    def _wanted(self) -> float:
        latest = sorted(self._lateness(), reverse=True)
        need = latest[_rank(LATE_SHARE, latest)]
        if need <= WAITED_FOR_S and latest[_rank(UNEVEN_SHARE, latest)] <= EVEN_S:
            return 0.0
        return min(need, LONGEST_DELAY_S)

    def _lateness(self) -> list[float]:
        """The lateness of the last packets, in seconds."""
        since = [transit - self._quickest for transit in self._counted]
        return self._before[len(since) :] + since

    def earliest(self, pts: int) -> float:
        """When the packet with time stamp `pts` comes if it is as quick as the quickest.

        Raises:
            ValueError: no packet is known yet.
        """
        if not self._transits:
            raise ValueError("no packet has come yet")
        return self._quickest + pts / SOUND_RATE_HZ

    def missed_at(self, pts: int, now: float) -> float:
        """Until when to wait for what is missing before the packet `pts`, which came just `now`."""
        patience = max(0.0, self.delay_s - PACKET_S) + PATIENCE_S
        if not self._transits:
            return now + patience
        return min(self.earliest(pts), now) + patience

    def restart(self) -> None:
        """Time stamps begin anew; how even the packets are is still remembered."""
        self._before = self._lateness()
        self._transits.clear()
        self._counted.clear()

    def forget(self) -> None:
        """The way itself has changed: what was learnt of it is over."""
        self.restart()
        self._before = []


def _rank(share: float, values: list[float]) -> int:
    """The place of the first of the sorted values that are not in that share of them."""
    return min(len(values) - 1, max(1, int(share * len(values))))
