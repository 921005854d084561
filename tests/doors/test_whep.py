"""WHEP: many watch one session, drawn once; the protocol to its letter."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from playwright.sync_api import Page

from benchmarks.server_process import ServerProcess, free_port
from server.live.session import Session
from server.settings import ServerSettings
from server.sound.sound_format import SoundFormat
from tests.doors.conftest import OpenKit
from tests.doors.one_way import FRAGMENT, SDP, Peer, one_way_offer
from tests.e2e.conftest import FAKE, OpenPage
from tests.e2e.conftest import open_page as open_page
from tests.e2e.live import sessions, wait_live, wait_until
from tests.server.live import Live, serving, until

pytestmark = pytest.mark.timeout(60)
MADE = r"^portraittalk_frames_made_total{.*} (\S+)$"
FACE = ("video recvonly", "audio recvonly")


async def new_session(live: Live) -> Session:
    made = await live.http.post("/api/sessions", json={})
    return live.service.find_session(made.json()["session_id"])


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_many_watch_one_render_and_one_who_leaves_disturbs_nobody() -> None:
    async with serving(settings=ServerSettings(capacity=4)) as live:
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


def frames_made(live: Live) -> float:
    text = live.service.metrics.text().decode()
    return sum(map(float, re.findall(MADE, text, re.MULTILINE)))


async def test_what_is_no_offer_of_a_player_is_refused_with_its_reason() -> None:
    async with serving(settings=ServerSettings(capacity=4)) as live:
        session = await new_session(live)
        path, offer = f"/whep/{session.id}", await one_way_offer(*FACE)

        async def post(body: str, **headers: str) -> httpx.Response:
            return await live.http.post(path, content=body, headers=SDP | headers)

        for body in (
            "",  # an offer is wanted of the server
            "hello",
            await one_way_offer("audio sendonly"),
            offer.replace("a=fingerprint", "a=other"),
        ):
            assert code_of(await post(body)) == (422, "bad_sdp"), body  # 400 means another thing
        response = await live.http.post(path, content=offer, headers={"Content-Type": "text/plain"})
        assert code_of(response) == (415, "unsupported_type")
        assert code_of(await post(offer, Accept="text/html")) == (406, "not_acceptable")
        assert code_of(await post(" " * 70_000)) == (413, "too_large")
        for method in ("PUT", "PATCH", "DELETE"):
            refused = await live.http.request(method, path)
            assert code_of(refused) == (405, "method_not_allowed")
            assert "POST" in refused.headers["Allow"]
        unknown = await live.http.post("/whep/nobody", content=offer, headers=SDP)
        assert code_of(unknown) == (404, "unknown_session")
        assert (await live.http.get("/whep/nobody")).status_code == 404
        assert (await live.http.get(path)).status_code == 204
        asked = await live.http.options(path)
        assert (asked.status_code, asked.headers["Accept-Post"]) == (200, SDP["Content-Type"])
        assert session.closed_for is None
        assert not live.service.resources.waiting()


async def test_a_connection_has_an_address_a_tag_and_an_end() -> None:
    stun = ("stun:127.0.0.1:9", "turn:127.0.0.1:9")
    async with serving(settings=ServerSettings(capacity=4)) as live:
        live.service.settings = replace(  # told, not asked
            live.service.settings, ice_servers=stun, turn_secret="of coturn"
        )
        session = await new_session(live)
        offer = await one_way_offer(*FACE)
        answer = await live.http.post(f"/whep/{session.id}", content=offer, headers=SDP)
        assert answer.status_code == 201
        assert answer.headers["Content-Type"] == SDP["Content-Type"]
        first, relay = answer.headers["Link"].split(", ")
        assert first == '<stun:127.0.0.1:9>; rel="ice-server"'
        assert re.fullmatch(
            r'<turn:127.0.0.1:9>; rel="ice-server"; username="\d+:anybody"; '
            r'credential="[A-Za-z0-9+/]{27}="; credential-type="password"',
            relay,
        )
        assert answer.text.count("a=sendonly") == 2
        assert len(set(re.findall(r"a=msid:(\S+)", answer.text))) == 1  # one stream
        assert "a=candidate" in answer.text
        assert not re.findall(r"^a=(?:recvonly|sendrecv|inactive)", answer.text, re.MULTILINE)
        place, etag = answer.headers["Location"], answer.headers["ETag"]
        assert re.fullmatch(f"/whep/{session.id}/[\\w-]+", place)
        assert re.fullmatch('"[^"]+"', etag)
        [ufrag] = set(re.findall(r"a=ice-ufrag:(\S+)", offer))

        async def patch(body: str, **headers: str) -> httpx.Response:
            named = FRAGMENT | {name.replace("_", "-"): value for name, value in headers.items()}
            return await live.http.patch(place, content=body, headers=named)

        found = (
            f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{'p' * 22}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\n"
            "a=mid:0\r\na=candidate:1 1 udp 2122260223 127.0.0.1 9 typ host\r\n"
            "a=candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active\r\n"
            "a=candidate:3 1 udp 2122260223 nobody.invalid 9 typ host\r\na=end-of-candidates\r\n"
        )
        for tags in ({}, {"If_Match": etag}, {"If_Match": f'"x", {etag}'}, {"If_Match": "*"}):
            assert (await patch(found, **tags)).status_code == 204
        [resource] = live.service.resources.waiting()
        ice = resource.viewer.pc.getTransceivers()[0].receiver.transport.transport
        assert "127.0.0.1" in {candidate.ip for candidate in ice.getRemoteCandidates()}
        anew = found.replace(ufrag, "another")
        assert code_of(await patch(found, If_Match='"x"')) == (412, "other_etag")
        assert code_of(await patch(anew)) == (428, "no_etag")
        assert code_of(await patch(anew, If_Match="*")) == (422, "no_ice_restart")
        for nonsense in ("", "hello", "m=nothing", "v=0"):
            assert code_of(await patch(nonsense)) == (422, "bad_sdp")
        typed = await live.http.patch(place, content=found, headers=SDP)
        assert code_of(typed) == (415, "unsupported_type")
        assert code_of(await live.http.post(place)) == (405, "method_not_allowed")
        asked = await live.http.options(place)
        assert asked.headers["Accept-Patch"] == FRAGMENT["Content-Type"]

        assert (await live.http.get(place)).status_code == 204
        assert (await live.http.delete(place)).status_code == 200
        for gone in (
            (await live.http.get(place)),
            (await patch(found)),
            await live.http.delete(place),
        ):
            assert code_of(gone) == (404, "unknown_connection")
        assert session.closed_for is None


async def test_who_hung_up_may_still_say_so() -> None:
    async with serving(settings=ServerSettings(capacity=4)) as live:
        session, player = await new_session(live), Peer(live.http)
        await player.open(f"/whep/{session.id}", *FACE)
        await player.close()
        await until(lambda: not session.live, 5)
        assert [(await live.http.delete(player.location)).status_code for _ in "12"] == [200, 404]


async def test_a_full_server_says_when_to_come_again() -> None:
    async with serving(settings=ServerSettings(capacity=1, max_watchers=1)) as live:
        first, other = await new_session(live), await new_session(live)
        watching = [Peer(live.http), Peer(live.http)]
        try:
            for player in watching:  # the place of the session, and one more
                await player.open(f"/whep/{first.id}", "audio recvonly")
            offer = await one_way_offer("audio recvonly")
            for session in (first, other):
                path = f"/whep/{session.id}"
                full = await live.http.post(path, content=offer, headers=SDP)
                assert code_of(full) == (503, "server_full")
                assert int(full.headers["Retry-After"]) > 0
            assert other.closed_for is None
            publishing = await one_way_offer("audio sendonly")
            full = await live.http.post("/whip", content=publishing, headers=SDP)
            assert code_of(full) == (503, "server_full")
        finally:
            for player in watching:
                await player.close()


async def test_offers_that_lead_nowhere_are_few_and_end() -> None:
    settings = ServerSettings(connect_timeout_s=1, offers_per_address=2, capacity=4)
    async with serving(settings=settings) as live:
        session, offer = await new_session(live), await one_way_offer(*FACE)
        path = f"/whep/{session.id}"
        posted = [await live.http.post(path, content=offer, headers=SDP) for _ in range(3)]
        assert [r.status_code for r in posted] == [201, 201, 429]
        assert "Retry-After" in posted[2].headers
        await until(lambda: not live.service.resources.waiting(), 5)
        assert (await live.http.post(path, content=offer, headers=SDP)).status_code == 201


async def test_a_mere_viewer_cuts_nobody_off() -> None:
    async with serving(settings=ServerSettings(capacity=4)) as live:
        session, player = await new_session(live), Peer(live.http)
        control = player.pc.createDataChannel("control")
        utterance = session.speech.begin("whole", SoundFormat(24_000, "pcm16"))
        utterance.push(bytes(48_000 * 4))
        try:
            with session.events.listen() as events:
                await player.open(f"/whep/{session.id}", *FACE)
                await until(lambda: control.readyState == "open", 5)
                control.send('{"type": "interrupt"}')
                control.send('{"type": "ping"}')
                pong = asyncio.get_running_loop().create_future()
                control.on(
                    "message", lambda m: '"pong"' in m and not pong.done() and pong.set_result(0)
                )
                await asyncio.wait_for(pong, 5)
                session.set_mood("thinking")
                while (event := await events.next(5)) is not None and event.type != "state":
                    assert event.type != "interrupted"
        finally:
            await player.close()


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
TWENTY_FRAMES = """() => {
  const video = document.getElementById("video");
  const late = new Promise((done) => setTimeout(done, 15000, "late"));
  const shown = (async () => {
    for (let i = 0; i < 20; i++) await new Promise((next) => video.requestVideoFrameCallback(next));
    return "shown";
  })();
  return Promise.race([late, shown]);
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
        environ.setenv("PORTRAITTALK__BEARER", TOKEN)
        environ.setenv(
            "PORTRAITTALK__CAPACITY", "4"
        )  # measured it would depend on who shares the machine
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
    alone = made_in_1_s(server, page)

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
    assert made_in_1_s(server, page) <= 1.2 * alone + 3
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
    page.bring_to_front()
    assert page.evaluate(TWENTY_FRAMES) == "shown"
    assert ("PATCH", 204) in answers
    assert {status for _, status in answers} <= {200, 201, 204}


def made_in_1_s(server: ServerProcess, page: Page) -> float:
    """Frames that the engine makes meanwhile."""

    def made() -> float:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
            found = re.findall(MADE, answer.read().decode(), re.MULTILINE)
        return sum(map(float, found))

    before, began = made(), time.monotonic()
    page.wait_for_timeout(1000)
    return (made() - before) / (time.monotonic() - began)
