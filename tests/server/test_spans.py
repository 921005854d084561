"""Each utterance is a span, sent where OpenTelemetry's own variables say."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from websockets.asyncio.client import connect

from engine.errors import BackendUnavailable
from server.live.spans import exporting
from server.settings import ServerSettings
from tests.server.live import serving, until, watching

pytestmark = pytest.mark.timeout(60)


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Something that takes spans over HTTP, as every collector does."""
    bodies: list[bytes] = []

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """It is not told."""

    with HTTPServer(("127.0.0.1", 0), Take) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


async def test_an_utterance_is_a_span_and_one_cut_off_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with collector() as (url, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        async with serving(settings=ServerSettings(port=0, telemetry=True)) as live:
            speech = live.url.replace("http", "ws") + "/api/speech?rate_hz=16000"
            async with connect(speech, proxy=None, max_queue=None) as socket:
                session = json.loads(await socket.recv())["session_id"]
                events: list[str] = []
                live.service.find_session(session).events.subscribe(
                    lambda event: events.append(event.type)
                )
                async with watching(live, session_id=session):
                    for name, seconds in (("whole", 0.3), ("cut", 20)):
                        await socket.send(json.dumps({"type": "begin", "utterance": name}))
                        await socket.send(bytes(int(2 * 16_000 * seconds)))
                        await socket.send(json.dumps({"type": "end"}))
                    await until(lambda: events.count("speaking_started") == 2, 10)
                    await socket.send(json.dumps({"type": "interrupt"}))
                    await until(lambda: events.count("speaking_stopped") == 2, 10)
    spans = {}
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for span in resource.scope_spans[0].spans:
                about = {a.key: a.value for a in span.attributes}
                spans[about["portraittalk.utterance"].string_value] = (span, about)
    assert set(spans) == {"whole", "cut"}
    whole, about = spans["whole"]
    assert about["session.id"].string_value == session
    assert not about["portraittalk.interrupted"].bool_value
    assert 0.2e9 < whole.end_time_unix_nano - whole.start_time_unix_nano < 3e9
    assert spans["cut"][1]["portraittalk.interrupted"].bool_value


def test_without_the_extra_it_is_said_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(BackendUnavailable, match="telemetry"), exporting("1"):
        pass
