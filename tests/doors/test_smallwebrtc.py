"""Pipecat's own browser client on our server: one way from its first offer to its last word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from websockets.sync.client import ClientConnection, connect

from benchmarks.server_process import ServerProcess
from tests.doors.conftest import OpenKit
from tests.e2e.conftest import FAKE
from tests.e2e.live import MOTION, hears_sound, sessions, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

# The unmodified client; what it tells is kept, and what comes over its channels.
CLIENT = """async ([request, start]) => {
  const { PipecatClient, SmallWebRTCTransport, WavMediaManager, RTVIEvent } = window.kit;
  window.wire = [];
  const create = RTCPeerConnection.prototype.createDataChannel;
  RTCPeerConnection.prototype.createDataChannel = function (...args) {
    const channel = create.apply(this, args);
    window.channel = channel;
    channel.addEventListener("message", (m) => window.wire.push(JSON.parse(m.data)));
    return channel;
  };
  const transport = new SmallWebRTCTransport({ mediaManager: new WavMediaManager(), iceServers: [] });
  const client = new PipecatClient({ transport, enableMic: true, enableCam: false });
  Object.assign(window, { client, transport, told: [] });
  for (const name of Object.values(RTVIEvent))
    client.on(name, (data) => window.told.push([name, data === undefined ? null : JSON.parse(JSON.stringify(data))]));
  client.on(RTVIEvent.TrackStarted, (track) => {
    const video = document.getElementById("video");
    if (track.kind === "video") video.srcObject = new MediaStream([track]);
    else { const sound = new Audio(); sound.srcObject = new MediaStream([track]); sound.play(); }
  });
  const ready = await (start ? client.startBotAndConnect(start) : client.connect(request));
  return ready;
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The face is not the point here."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with ServerProcess(log, FAKE, ("--step-ms", "2")) as running:
        yield running
    assert "Traceback" not in Path(log).read_text()


def told(page: Page, name: str) -> list[Any]:
    """Data of the client's events of one name, so far."""
    return [data for event, data in page.evaluate("window.told") if event == name]


def server_messages(page: Page, type: str) -> list[dict[str, Any]]:
    return [data for data in told(page, "serverMessage") if data["type"] == type]


def wait_told(page: Page, name: str, count: int = 1, timeout_s: float = 8) -> list[Any]:
    wait_until(page, f"{count} x {name}", lambda: len(told(page, name)) >= count, timeout_s)
    return told(page, name)


def speech_url(server: ServerProcess, session: str) -> str:
    return server.url.replace("http", "ws") + f"/api/sessions/{session}/speech"


def messages(socket: ClientConnection) -> Iterator[dict[str, Any]]:
    while True:
        yield json.loads(socket.recv(timeout=10))


def say(server: ServerProcess, session: str, utterance: str, seconds: float) -> None:
    """An assistant behind the WebSocket door speaks."""
    t = np.arange(int(24_000 * seconds)) / 24_000
    pcm = (np.sin(2 * np.pi * 200 * t) * 9000 * np.abs(np.sin(9 * t))).astype("<i2").tobytes()
    words = [{"text": "hello", "start_ms": 100, "end_ms": 300}]
    with connect(speech_url(server, session)) as socket:
        socket.send(json.dumps({"type": "begin", "utterance": utterance}))
        socket.send(json.dumps({"type": "words", "words": words}))
        socket.send(pcm)
        socket.send(json.dumps({"type": "end"}))
        socket.send(json.dumps({"type": "ping"}))
        assert any(m["type"] == "pong" for m in messages(socket))


@pytest.mark.timing
def test_pipecats_client_goes_the_whole_way(
    open_kit: OpenKit, server: ServerProcess, browser: Browser
) -> None:
    page = open_kit(server.url, "pipecat")
    params = {"endpoint": f"{server.url}/api/offer", "requestData": {"prompt": "smile"}}
    ready = page.evaluate(CLIENT, [{"webrtcRequestParams": params}, None])
    assert ready["version"].startswith("2.")
    assert ready["about"]["library"] == "portraittalk"
    wait_told(page, "userStartedSpeaking")  # Chromium's microphone plays a voice
    wait_told(page, "metrics")
    session = server_messages(page, "session")[0]["session_id"]

    say(server, session, "first", 6.0)
    wait_told(page, "botStartedSpeaking")
    assert hears_sound(page)
    wait_until(page, "the face moves", lambda: page.evaluate(MOTION, 150) > 0.1, 4)
    assert wait_told(page, "botOutput")[0]["text"] == "hello"
    levels = [m["data"]["value"] for m in page.evaluate("wire") if m["type"] == "bot-audio-level"]
    assert max(levels) > 0.5

    cut = page.evaluate("client.sendClientRequest('interrupt')")
    assert cut["utterance"] == "first"
    assert 500 < cut["position_ms"] < 6000
    wait_told(page, "botStoppedSpeaking")
    [told_of] = server_messages(page, "interrupted")
    assert told_of["position_ms"] == cut["position_ms"]
    assert "bot-interrupted" in [m["type"] for m in page.evaluate("wire")]
    wait_until(page, "silence", lambda: not hears_sound(page, 0.3), 1.5)

    # What is not to be had is said: no brain is attached, and no such wish is known.
    page.evaluate("client.sendText('who are you?')")
    assert "no language model" in wait_told(page, "messageError")[0]["data"]["error"]
    with connect(speech_url(server, session)) as assistant:
        page.evaluate("client.sendText('and now?')")
        typed = next(m for m in messages(assistant) if m["type"] == "text")
    assert typed["text"] == "and now?"
    asked = "client.sendClientRequest('dance').catch((error) => error.data.error)"
    assert "dance" in page.evaluate(asked)

    # Another offer of the same connection, then a new connection in its place: one session.
    came = len(server_messages(page, "viewers"))
    renegotiate = json.dumps({"type": "signalling", "message": {"type": "renegotiate"}})
    with page.expect_response(lambda r: r.request.method == "POST") as answered:
        page.evaluate(
            "m => channel.dispatchEvent(new MessageEvent('message', { data: m }))", renegotiate
        )
    again = answered.value.json()
    assert again["session_id"] == session
    page.wait_for_function("transport.pc.signalingState === 'stable'")
    shown = page.evaluate("video.currentTime")
    page.wait_for_function("before => video.currentTime > before + 0.2", arg=shown)
    assert page.evaluate("client.sendClientRequest('session')")["viewers"] == 1
    assert len(server_messages(page, "viewers")) == came  # nobody came or went
    with page.expect_response(lambda r: r.request.method == "POST") as answered:
        page.evaluate("void transport.attemptReconnection(true)")
    assert json.loads(answered.value.request.post_data or "")["restart_pc"]
    assert answered.value.json()["session_id"] == session
    page.wait_for_function("transport.dc.readyState === 'open'")
    assert not told(page, "botDisconnected")
    say(server, session, "second", 0.6)
    wait_told(page, "botStoppedSpeaking", 2)
    assert server_messages(page, "speaking_stopped")[-1]["interrupted"] is False
    shown = page.evaluate("video.currentTime")
    page.wait_for_function("before => video.currentTime > before + 0.2", arg=shown)

    page.evaluate("client.disconnect()")  # an assistant that just left may come back for 5 s
    wait_until(page, "the session is over", lambda: sessions(server) == 0, 8)


def test_a_bot_is_started_then_leaves(
    open_kit: OpenKit, server: ServerProcess, browser: Browser
) -> None:
    page = open_kit(server.url, "pipecat")
    page.evaluate(CLIENT, [None, {"endpoint": f"{server.url}/start", "requestData": {}}])
    assert server_messages(page, "session")[0]["viewers"] == 1
    page.evaluate("client.disconnectBot()")
    wait_told(page, "botDisconnected")
    assert server_messages(page, "closing")[0]["reason"] == "client"
    wait_until(
        page, "the client hangs up", lambda: page.evaluate("client.state") == "disconnected", 3
    )
    wait_until(page, "the session is over", lambda: sessions(server) == 0, 3)
