"""What is measured: one server for Prometheus, one session for its viewer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP_BUCKETS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.075, 0.1, 0.25, 1.0)


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

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


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
