"""What is measured: one server for Prometheus, one session for its viewer."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP_BUCKETS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.075, 0.1, 0.25, 1.0)
_DELAY_BUCKETS = (0.0, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2)


class Metrics:
    """The numbers that `/metrics` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        gauge = partial(Gauge, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.sessions = gauge("portraittalk_sessions", "Open sessions")
        self.places = gauge("portraittalk_places", "Viewers that are served well at once")
        self.frames = counter("portraittalk_frames", "Frames handed to an encoder")
        self.step_seconds = histogram(
            "portraittalk_engine_step_seconds",
            "Time of one engine step that made a frame",
            buckets=_STEP_BUCKETS,
        )
        self.streams_a_step = gauge(
            "portraittalk_engine_streams_a_step", "Streams of an engine step, their mean so far"
        )
        self.made = counter(
            "portraittalk_frames_made",
            "Frames made by the engine; quality 0 is the full one",
            ["quality"],
        )
        self.dropped = counter(
            "portraittalk_dropped", "Pieces dropped by the rule of their queue", ["queue"]
        )
        self.refused = counter("portraittalk_refused", "Requests refused", ["code"])
        self.failed = counter("portraittalk_sessions_failed", "Sessions ended by an error")
        self.microphone_lost = counter(
            "portraittalk_microphone_lost", "Microphone packets that never came"
        )
        self.microphone_late = counter(
            "portraittalk_microphone_late", "Microphone packets that came too late to be heard"
        )
        self.microphone_concealed = counter(
            "portraittalk_microphone_concealed_seconds",
            "Microphone sound made up in the place of what was missing",
        )
        self.microphone_delay = histogram(
            "portraittalk_microphone_delay_seconds",
            "Delay that evens out a microphone's packets, seen once a second",
            buckets=_DELAY_BUCKETS,
        )

        self.viewer_lost = counter(
            "portraittalk_viewer_packets_lost", "Packets that viewers say never came"
        )
        self.waiting = gauge(
            "portraittalk_waiting",
            "What waits in a queue, in pieces or as its name says",
            ["queue"],
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class MicrophoneCounts:
    """Adds what one microphone has counted so far to the server's numbers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._added = [0.0, 0.0, 0.0]

    def update(self, *, lost: int, late: int, concealed_s: float, delay_s: float) -> None:
        """Take the microphone's totals and its present delay; a total that fell waits to rise again."""
        metrics = self._metrics
        counters = (metrics.microphone_lost, metrics.microphone_late, metrics.microphone_concealed)
        for i, (counter, total) in enumerate(zip(counters, (lost, late, concealed_s), strict=True)):
            counter.inc(max(0.0, total - self._added[i]))
            self._added[i] = max(total, self._added[i])
        metrics.microphone_delay.observe(delay_s)


class Legs:
    """Mean time of each leg since the last report, in ms."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, leg: str, seconds: float) -> None:
        """Count one passage."""
        total, count = self._sums.get(leg, (0.0, 0))
        self._sums[leg] = (total + seconds, count + 1)

    def take(self) -> dict[str, float]:
        """Return the means and start anew."""
        sums, self._sums = self._sums, {}
        return {leg: round(1000 * total / count, 1) for leg, (total, count) in sums.items()}
