"""What is measured: one server for Prometheus, one session for its viewer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP_BUCKETS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.075, 0.1, 0.25, 1.0)
_DELAY_BUCKETS = (0.0, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2)


class Metrics:
    """The numbers that `/metrics` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = Gauge("portraittalk_sessions", "Open sessions", registry=self.registry)
        self.places = Gauge(
            "portraittalk_places", "Viewers that are served well at once", registry=self.registry
        )
        self.frames = Counter(
            "portraittalk_frames", "Frames handed to an encoder", registry=self.registry
        )
        self.step_seconds = Histogram(
            "portraittalk_engine_step_seconds",
            "Time of one engine step that made a frame",
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )
        self.made = Counter(
            "portraittalk_frames_made",
            "Frames made by the engine; quality 0 is the full one",
            ["quality"],
            registry=self.registry,
        )
        self.dropped = Counter(
            "portraittalk_dropped",
            "Pieces dropped by the rule of their queue",
            ["queue"],
            registry=self.registry,
        )
        self.refused = Counter(
            "portraittalk_refused", "Requests refused", ["code"], registry=self.registry
        )
        self.failed = Counter(
            "portraittalk_sessions_failed", "Sessions ended by an error", registry=self.registry
        )
        self.microphone_lost = Counter(
            "portraittalk_microphone_lost",
            "Microphone packets that never came",
            registry=self.registry,
        )
        self.microphone_late = Counter(
            "portraittalk_microphone_late",
            "Microphone packets that came too late to be heard",
            registry=self.registry,
        )
        self.microphone_concealed = Counter(
            "portraittalk_microphone_concealed_seconds",
            "Microphone sound made up in the place of what was missing",
            registry=self.registry,
        )
        self.microphone_delay = Histogram(
            "portraittalk_microphone_delay_seconds",
            "Delay that evens out a microphone's packets, seen once a second",
            buckets=_DELAY_BUCKETS,
            registry=self.registry,
        )

        self.viewer_lost = Counter(
            "portraittalk_viewer_packets_lost",
            "Packets that viewers say never came",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "portraittalk_waiting",
            "What waits in a queue, in pieces or as its name says",
            ["queue"],
            registry=self.registry,
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
