"""WHEP: many watch one session, drawn once; the protocol to its letter."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page

from benchmarks.server_process import ServerProcess, free_port
from server.session import Session
from server.settings import ServerSettings
from tests.doors.conftest import OpenKit
from tests.doors.one_way import Peer
from tests.e2e.conftest import FAKE, OpenPage
from tests.e2e.conftest import open_page as open_page
from tests.e2e.live import sessions, wait_live, wait_until
from tests.server.live import Live, serving, until

pytestmark = pytest.mark.timeout(60)
FACE = ("video recvonly", "audio recvonly")


async def new_session(live: Live) -> Session:
    made = await live.http.post("/api/sessions", json={})
    return live.service.find_session(made.json()["session_id"])


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_many_watch_one_render_and_one_who_leaves_disturbs_nobody() -> None:
    async with serving(settings=ServerSettings(capacity=4, port=0)) as live:
        session = await new_session(live)
        orders = (FACE, FACE[::-1], FACE[:1], FACE[1:])
        players = [Peer(live.http) for _ in orders]
        try:
            for player, media in zip(players, orders, strict=True):
                await player.open(f"/whep/{session.id}", *media)
            assert len(live.service.sessions) == live.service.sessions.live == 1
            await until(lambda: all(len(p.shown) > 25 for p in players[:3]), 20)
            await until(
                lambda: all(p.report.sound_packets > 50 for p in players if p is not players[2]), 20
            )
            assert not players[3].shown
            assert players[2].report.sound_packets == 0
            made, shown = frames_made(live), [len(p.shown) for p in players]
            await until(lambda: frames_made(live) >= made + 25, 20)
            assert all(len(p.shown) > before for p, before in zip(players[:3], shown, strict=False))

            assert (await live.http.delete(players[0].location)).status_code == 200
            await until(lambda: players[0].pc.connectionState == "closed", 5)
            await players[1].close()  # without a word
            await until(lambda: len(session.broadcast.outlets) == 2, 5)
            seen = len(players[2].shown)
            await until(lambda: len(players[2].shown) > seen + 10, 10)
            assert session.closed_for is None
        finally:
            for player in players:
                await player.close()


def frames_made(live: Live) -> int:
    return sum(int(float(x.split()[-1])) for x in metric(live, "portraittalk_frames_made_total{"))


def metric(live: Live, name: str) -> list[str]:
    lines = live.service.metrics.text().decode().splitlines()
    return [line for line in lines if line.startswith(name)]


TOKEN = "a-token-of-the-tests"
KEEP_SESSION = """
const ask = window.fetch;
window.fetch = async (...request) => {
  const response = await ask(...request);
  response.clone().json().then((body) => { window.session ??= body.session_id; }, () => {});
  return response;
};
"""
VIEW = """async ([url, token]) => {
  const pc = new RTCPeerConnection(), video = document.getElementById("video");
  for (const kind of ["audio", "video"]) pc.addTransceiver(kind, { direction: "recvonly" });
  pc.ontrack = (event) => { video.srcObject = event.streams[0]; };
  window.client = new window.kit.WHEPClient();
  await window.client.view(pc, url, token);
}"""
PLAY = """async ([url, token]) => {
  const video = document.getElementById("video");
  window.client = new window.kit.WebRTCPlayer({ video, type: "whep", iceServers: [] });
  await window.client.load(new URL(url), `Bearer ${token}`);
}"""
PUBLISH = """async ([url, token]) => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const pc = new RTCPeerConnection();
  for (const track of stream.getTracks())
    pc.addTransceiver(track, { direction: "sendonly", streams: [stream] });
  window.publisher = new window.kit.WHIPClient();
  await window.publisher.publish(pc, url, token);
}"""
FRAMES = """async () => {
  for (const stat of (await window.__connections[0].getStats()).values())
    if (stat.type === "inbound-rtp" && stat.kind === "video") return stat.framesDecoded ?? 0;
  return 0;
}"""
HEARD = """async () => {
  for (const stat of (await window.__connections[0].getStats()).values())
    if (stat.type === "inbound-rtp" && stat.kind === "audio") return stat.totalAudioEnergy ?? 0;
  return 0;
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a token that lets pages of another origin in."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log.txt"
    flags = ("--allow-origin", f"http://localhost:{port}")
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("AVATAR_BEARER", TOKEN)
        environ.setenv("AVATAR_CAPACITY", "4")  # measured it would depend on who shares the machine
        with ServerProcess(log, FAKE, flags, port=port) as running:
            yield running


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_players_of_other_makers_watch_what_our_page_shows(
    server: ServerProcess, open_page: OpenPage, open_kit: OpenKit
) -> None:
    page = open_page(server.url, script=KEEP_SESSION)
    wait_live(page)
    session = page.evaluate("window.session")
    alone = made_in_2_s(server, page)

    other_origin = server.url.replace("127.0.0.1", "localhost")
    viewer, player = open_kit(other_origin, "whip"), open_kit(other_origin, "player")
    answers: list[tuple[str, int]] = []
    for each, script in ((viewer, VIEW), (player, PLAY)):
        each.context.grant_permissions(["microphone", "local-network-access"])
        each.on("response", lambda r: answers.append((r.request.method, r.status)))
        each.mouse.click(5, 5)  # only a page that was touched plays sound
        each.evaluate(script, [f"{server.url}/whep/{session}", TOKEN])
    for each in (viewer, player):
        wait_until(each, "25 frames", lambda each=each: each.evaluate(FRAMES) >= 25, 20)
    assert made_in_2_s(server, page) <= 1.2 * alone + 2
    assert sessions(server) == 1

    viewer.evaluate(PUBLISH, [f"{server.url}/whip/{session}", TOKEN])
    for each in (viewer, player):
        wait_until(each, "sound", lambda each=each: each.evaluate(HEARD) > 1e-4, 20)
    viewer.evaluate("window.publisher.stop()")
    viewer.evaluate("window.client.stop()")
    player.evaluate("window.client.unload()")
    wait_until(
        page,
        "they left",
        lambda: [a for a in answers if a[0] == "DELETE"] == [("DELETE", 200)] * 3,
        10,
    )
    before = page.evaluate(FRAMES)
    wait_until(page, "our page goes on", lambda: page.evaluate(FRAMES) > before + 20, 10)
    assert ("PATCH", 204) in answers
    assert {status for _, status in answers} <= {200, 201, 204}


def made_in_2_s(server: ServerProcess, page: Page) -> float:
    """Frames that the engine makes meanwhile."""

    def made() -> float:
        text = urllib.request.urlopen(f"{server.url}/metrics", timeout=10).read().decode()
        found = re.findall(r"^portraittalk_frames_made_total{.*} (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    before, began = made(), time.monotonic()
    page.wait_for_timeout(2000)
    return (made() - before) * 2 / (time.monotonic() - began)
