"""What one session measures of itself, for its viewers and for `/metrics`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from engine.config import StreamConfig
from server.live.clips import Picture
from server.live.clock import PACKET_S
from server.live.events import EventHub
from server.metrics import Legs, Metrics, MicrophoneCounts
from server.sound.intake import SOUND_RATE_HZ, Intake

REPORT_S = 1.0


class Figures:
    """Counts what becomes of the pictures of one session, and how long each leg takes."""

    def __init__(self, metrics: Metrics, stream: StreamConfig) -> None:
        self.legs = Legs()
        self.dropped = 0  # pictures
        self._metrics = metrics
        self._shown = 0
        self._hop_s = 1 / stream.fps - PACKET_S  # the first packet waits for the rest of its frame
        self._lookahead_s = stream.lookahead_frames / stream.fps

    def made(self, picture: Picture) -> None:
        """Count a picture that the engine gave."""
        self.legs.add("hop", self._hop_s)
        self.legs.add("lookahead", self._lookahead_s)
        self.legs.add("queue", picture.queued_s)
        self.legs.add("engine", picture.step_s)

    def lost(self, count: int) -> None:
        """Count pictures that were dropped on their way out."""
        self.dropped += count
        self._metrics.dropped.labels(queue="playout").inc(count)

    def received(self, *, lost: int) -> None:
        """Count packets that a viewer lost."""
        self._metrics.viewer_lost.inc(lost)

    def left(self, picture: Picture, now: float) -> None:
        """Count a picture that was handed to the outlets."""
        self.legs.add("wait", now - picture.made)
        self._shown += 1
        self._metrics.frames.inc()
        if picture.beep is not None and picture.beep.frame_sent is None:
            picture.beep.frame_sent = now

    async def report(self, events: EventHub, microphone: Callable[[], Intake | None]) -> None:
        """Tell everybody once a second, for ever; `microphone` gives the one that is heard, if any."""
        last, shown = time.monotonic(), self._shown
        counts = MicrophoneCounts(self._metrics)
        while True:
            await asyncio.sleep(REPORT_S)
            now = time.monotonic()
            if (intake := microphone()) is not None:
                counts.update(
                    lost=intake.lost,
                    late=intake.arrivals.late,
                    concealed_s=intake.concealed / SOUND_RATE_HZ,
                    delay_s=intake.target_delay_s,
                )
            events.emit(
                "stats",
                fps=round((self._shown - shown) / (now - last), 1),
                legs_ms=self.legs.take(),
                dropped=self.dropped,
            )
            last, shown = now, self._shown
