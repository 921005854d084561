"""A span of OpenTelemetry for each utterance, from its first sound to its last (extra `telemetry`).

Where they go is said by OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_ENDPOINT` and the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server.extras import extra
from server.live.events import Event
from server.live.session import Session

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


class Spans:
    """Makes the spans of the sessions that it follows."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def follow(self, session: Session) -> None:
        """Make a span of each utterance from now on; one that is cut off says so."""
        open_spans: dict[str, Span] = {}

        def take(event: Event) -> None:
            if event.type == "speaking_started":
                about = {
                    "session.id": session.id,
                    "portraittalk.utterance": event.data["utterance"],
                }
                span = self._tracer.start_span("utterance", attributes=about)
                open_spans[event.data["utterance"]] = span
            elif event.type == "speaking_stopped":
                span_over = open_spans.pop(event.data["utterance"], None)
                if span_over is not None:
                    span_over.set_attribute("portraittalk.played_ms", event.data["position_ms"])
                    span_over.set_attribute("portraittalk.interrupted", event.data["interrupted"])
                    span_over.end()
            elif event.type == "closing":
                for unfinished in open_spans.values():
                    unfinished.set_attribute("portraittalk.interrupted", True)
                    unfinished.end()
                open_spans.clear()

        session.events.subscribe(take)


@contextmanager
def exporting(version: str) -> Iterator[Spans]:
    """Spans that are sent while the block runs; raises `BackendUnavailable` without the extra."""
    with extra("telemetry"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    about = Resource.create({"service.name": "portraittalk", "service.version": version})
    provider = TracerProvider(resource=about)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield Spans(provider.get_tracer("portraittalk", version))
    finally:
        provider.shutdown()
