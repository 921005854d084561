"""What whoever runs the server sees: readiness, an end without haste, logs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from benchmarks.server_process import ServerProcess
from client_example.headless import Viewer
from server import logs
from server.settings import ServerSettings
from server.web.draining import drain
from tests.server.live import serving, until, watching

pytestmark = pytest.mark.timeout(60)
FAKE = (sys.executable, "-m", "tests.server.fake_server")


async def test_a_server_that_drains_says_all_gives_notice_and_takes_nobody_new() -> None:
    async with serving() as live:
        url = live.url.replace("http", "ws") + "/api/speech?rate_hz=16000"
        async with connect(url, proxy=None) as socket:
            session = json.loads(await socket.recv())["session_id"]
            async with watching(live, session_id=session) as viewer:
                await socket.send(bytes(2 * 16_000))
                await socket.send(json.dumps({"type": "end"}))
                at: dict[str, float] = {}

                async def listen() -> None:
                    async for message in socket:
                        at[json.loads(message)["type"]] = time.monotonic()

                listening = asyncio.ensure_future(listen())
                await until(lambda: "speaking_started" in at, 5)
                assert (await live.http.get("/readyz")).status_code == 200
                draining = asyncio.ensure_future(drain(live.service, 20))
                await asyncio.sleep(0.1)
                assert (await live.http.get("/readyz")).status_code == 503
                assert (await live.http.get("/healthz")).status_code == 200
                refused = await live.http.post("/api/sessions", json={})
                assert refused.status_code == 503
                assert int(refused.headers["Retry-After"]) > 0
                await draining
                await listening
                assert at["speaking_stopped"] <= at["draining"]
                assert at["closing"] - at["draining"] >= 0.9
                assert socket.close_code == 1001
                seen = [event["type"] for event in viewer.events]
                assert seen.index("speaking_stopped") < seen.index("draining")
                assert seen[-1] == "closing"


async def test_what_never_ends_is_not_waited_for() -> None:
    async with serving() as live, watching(live) as viewer:
        session = live.service.find_session(str(viewer.session_id))
        session.set_mood("speaking")
        began = time.monotonic()
        await drain(live.service, 0.3)
        assert 1.2 <= time.monotonic() - began < 3


async def test_sigterm_lets_the_viewer_know_before_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with ServerProcess(log, FAKE) as server:
        viewer = Viewer(server.url)
        try:
            await viewer.connect()
            await until(lambda: any(e["type"] == "viewers" for e in viewer.events), 10)
            os.kill(server.pid, signal.SIGTERM)
            await until(lambda: any(e["type"] == "draining" for e in viewer.events), 5)
            began = time.monotonic()
            await until(lambda: any(e["type"] == "closing" for e in viewer.events), 5)
            assert time.monotonic() - began >= 0.8
        finally:
            await viewer.close()
        await asyncio.to_thread(server._process.wait, 10)  # type: ignore[union-attr]
    assert "Traceback" not in log.read_text()


def logged(kind: logs.LogFormat, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure(kind)
    return out


def test_json_logs_name_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    out = logged("json", monkeypatch)
    token = logs.session_id.set("abc")
    try:
        try:
            raise ValueError("no\nway")
        except ValueError:
            logging.getLogger("server.x").exception("it %s", "failed")
    finally:
        logs.session_id.reset(token)
    logging.getLogger("server.x").warning("plain")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["session"], first["message"], first["level"]) == ("abc", "it failed", "error")
    assert "ValueError: no\nway" in first["error"]
    assert "session" not in second


async def test_what_a_session_logs_carries_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as live, watching(live) as viewer:
        out = logged("json", monkeypatch)
        session = live.service.find_session(str(viewer.session_id))
        session.on_close.insert(0, _broken)
        await session.close()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["session"] for line in lines if "ended by an error" in line["message"]] == [
        viewer.session_id
    ]


async def _broken() -> None:
    raise RuntimeError("a door that cannot close")


def test_a_flood_becomes_a_line_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    out = logged("text", monkeypatch)
    now = 0.0
    flood = logs.NoFlood(lambda: now)
    logging.getLogger().handlers[0].filters[0] = flood
    for _ in range(3):
        for _ in range(1000):
            logging.getLogger("asyncio").error("too many open files")
        now += 1.01
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "and 999 times more" in lines[1]


@pytest.mark.parametrize("name", ["AVATAR_PORT", "PORTRAITTALK_PORT", "PORTRAITTALK_SERVICE_PORT"])
def test_a_service_link_is_no_setting(name: str) -> None:
    assert ServerSettings.merge({name: "tcp://10.0.0.1:8080"}, {}).port == 8080
