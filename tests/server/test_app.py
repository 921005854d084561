"""The HTTP contract, as others build against it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from benchmarks.colour_profiles import in_space, profile
from engine.offline.casting import cast
from engine.types import PortraitReport
from server.app import create_app
from server.errors import ApiError
from server.live.worker import WorkerStopped
from server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine
from tests.server.live import PORTRAIT, offer_sdp, serving
from tests.server.pictures import ACCEPTED, REFUSED, encoded, photo

JSON = {"Content-Type": "application/json"}
pytestmark = pytest.mark.timeout(60)


@contextlib.asynccontextmanager
async def asking(engine: FakeEngine, settings: ServerSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application around that engine."""
    app = create_app(engine, settings, PORTRAIT, "Astronaut")
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        client.app = app  # type: ignore[attr-defined]
        yield client


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    settings = ServerSettings(
        max_sessions=1, capacity=1, max_upload_bytes=200_000, portraits_kept=3
    )
    async with asking(FakeEngine(side=64), settings) as client:
        yield client


async def post_picture(
    http: httpx.AsyncClient, content: bytes | AsyncIterator[bytes], kind: str = "image/jpeg"
) -> httpx.Response:
    return await http.post("/api/portraits", content=content, headers={"Content-Type": kind})


def code_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert len(error["message"]) > 5
    return str(error["code"])


async def test_health_and_config(http: httpx.AsyncClient) -> None:
    health = await http.get("/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "ok", "sessions": 0})
    config = (await http.get("/api/config")).json()
    assert config.pop("version")
    assert "smile" in config.pop("expressions")
    assert config == {
        "fps": 25,
        "lookahead_ms": 80,
        "max_sessions": 1,
        "ice_servers": [],
        "profile": "tiny",
        "speech": "tiny",
        "consent_required": False,
        "disclosure": None,
    }


async def test_a_stopped_engine_is_not_healthy(http: httpx.AsyncClient) -> None:
    http.app.state.service.worker.stop()  # type: ignore[attr-defined]
    assert (await http.get("/healthz")).status_code == 503
    response = await http.post("/api/offer", json={"sdp": await offer_sdp(), "type": "offer"})
    assert response.status_code == 503


async def test_the_page_and_its_files_are_served(http: httpx.AsyncClient) -> None:
    index = await http.get("/")
    assert index.status_code == 200
    assert "<html" in index.text
    script = await http.get("/page/app.js")
    assert script.status_code == 200
    assert "javascript" in script.headers["Content-Type"]
    assert (await http.get("/page/../settings.py")).status_code == 404
    assert (await http.get("/page/%2e%2e/settings.py")).status_code == 404


async def test_the_bundled_portrait_is_listed_and_shown(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/api/portraits")).json()
    assert listed == {
        "portraits": [{"id": "default", "name": "Astronaut", "width": 96, "height": 96}]
    }
    image = await http.get("/api/portraits/default/image")
    assert image.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(image.content)).size == (96, 96)


async def test_an_upload_can_be_used_but_is_not_listed(http: httpx.AsyncClient) -> None:
    response = await post_picture(http, encoded(photo(), "JPEG"))
    assert response.status_code == 201
    portrait = response.json()
    assert (portrait["width"], portrait["height"]) == (200, 240)
    assert (await http.get(f"/api/portraits/{portrait['id']}/image")).status_code == 200
    assert len((await http.get("/api/portraits")).json()["portraits"]) == 1
    body = {"sdp": await offer_sdp(), "type": "offer", "portrait_id": portrait["id"]}
    answer = await http.post("/api/offer", json=body)
    assert answer.status_code == 200
    assert answer.json().keys() == {"sdp", "type", "session_id", "resume", "voice"}


async def test_old_uploads_are_forgotten(http: httpx.AsyncClient) -> None:
    data = encoded(photo())
    ids = [(await post_picture(http, data)).json()["id"] for _ in range(4)]
    assert (await http.get(f"/api/portraits/{ids[0]}/image")).status_code == 404
    assert (await http.get(f"/api/portraits/{ids[3]}/image")).status_code == 200
    body = {"sdp": await offer_sdp(), "type": "offer", "portrait_id": ids[0]}
    response = await http.post("/api/offer", json=body)
    assert (response.status_code, code_of(response)) == (404, "unknown_portrait")


@pytest.mark.parametrize(
    ("colour", "code"),
    [
        ((0, 0, 0), "no_face"),
        ((255, 255, 255), "mouth_hidden"),
        ((128, 128, 128), "face_too_small"),
        ((0, 0, 255), "turned_away"),
    ],
)
async def test_the_engines_refusals_come_through(
    http: httpx.AsyncClient, colour: tuple[int, int, int], code: str
) -> None:
    response = await post_picture(http, encoded(Image.new("RGB", (99, 99), colour)))
    assert (response.status_code, code_of(response)) == (422, code)


async def test_every_hostile_picture_is_refused_and_the_server_lives(
    http: httpx.AsyncClient,
) -> None:
    for name, make in REFUSED.items():
        response = await post_picture(http, make())
        assert response.status_code in (400, 413), name
        assert code_of(response) in ("bad_image", "too_large"), name
    assert (await http.get("/healthz")).status_code == 200
    assert (await post_picture(http, ACCEPTED["jpeg"]())).status_code == 201


async def test_too_large_an_upload_is_refused_before_it_is_read(http: httpx.AsyncClient) -> None:
    read = []

    async def endless() -> AsyncIterator[bytes]:
        for i in range(1000):
            read.append(i)
            yield bytes(10_000)

    response = await post_picture(http, endless())
    assert (response.status_code, code_of(response)) == (413, "too_large")


async def test_too_many_uploads_at_once_are_asked_to_come_again(http: httpx.AsyncClient) -> None:
    picture = encoded(photo(1500, 1500), "JPEG")
    assert len(picture) < 200_000
    responses = await asyncio.gather(*(post_picture(http, picture) for _ in range(12)))
    statuses = {r.status_code for r in responses}
    assert statuses == {201, 503}
    refused = [r for r in responses if r.status_code == 503]
    assert {code_of(r) for r in refused} == {"server_full"}
    assert all(int(r.headers["Retry-After"]) > 0 for r in refused)
    assert (await post_picture(http, picture)).status_code == 201


BAD_OFFERS: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "bad_json"),
    "no json": (b"hello", 400, "bad_json"),
    "half a json": (b'{"sdp": "v=0', 400, "bad_json"),
    "bad utf-8": (b'{"sdp": "\xff\xfe"}', 400, "bad_json"),
    "a deep json": (b"[" * 100_000, 400, "bad_json"),
    "a list": (b"[]", 422, "bad_request"),
    "null": (b"null", 422, "bad_request"),
    "a number": (b"7", 422, "bad_request"),
    "no sdp": (b'{"type": "offer"}', 422, "bad_request"),
    "no type": (b'{"sdp": "v=0"}', 422, "bad_request"),
    "an answer": (b'{"sdp": "v=0", "type": "answer"}', 422, "bad_request"),
    "sdp is a number": (b'{"sdp": 3, "type": "offer"}', 422, "bad_request"),
    "sdp is null": (b'{"sdp": null, "type": "offer"}', 422, "bad_request"),
    "portrait is a list": (
        b'{"sdp": "v=0", "type": "offer", "portrait_id": []}',
        422,
        "bad_request",
    ),
    "a portrait id without end": (
        json.dumps({"sdp": "v=0", "type": "offer", "portrait_id": "x" * 9999}).encode(),
        422,
        "bad_request",
    ),
    "a megabyte": (b'{"sdp": "' + b"x" * 1_000_000 + b'", "type": "offer"}', 413, "too_large"),
    "an empty sdp": (b'{"sdp": "", "type": "offer"}', 400, "bad_sdp"),
    "an sdp of one line": (b'{"sdp": "v=0", "type": "offer"}', 400, "bad_sdp"),
}


@pytest.mark.parametrize("name", BAD_OFFERS)
async def test_a_bad_offer_is_refused(http: httpx.AsyncClient, name: str) -> None:
    body, status, code = BAD_OFFERS[name]
    response = await http.post("/api/offer", content=body, headers=JSON)
    assert (response.status_code, code_of(response)) == (status, code)
    assert (await http.get("/healthz")).json()["sessions"] == 0


async def test_broken_session_descriptions_are_refused_and_hold_no_place(
    http: httpx.AsyncClient,
) -> None:
    good = await offer_sdp()
    lines = good.splitlines(keepends=True)
    broken = {
        "no media": "".join(lines[:6]),
        "video is sent to us": await offer_sdp(video="sendonly"),
        "video alone": good[: good.index("m=audio")].replace("BUNDLE 0 1", "BUNDLE 0"),
        "sound is sent to us only": await offer_sdp(audio="sendonly"),
        "unknown codecs": good.replace("VP8/90000", "XX8/90000").replace("H264/", "XX4/"),
        "no opus": good.replace("opus/48000/2", "xpus/48000/2"),
        "no fingerprint": "".join(x for x in lines if "fingerprint" not in x),
        "no ice password": "".join(x for x in lines if "ice-pwd" not in x),
        "a port that is no number": good.replace("m=video ", "m=video x"),
        "candidates of noise": good.replace("typ host", ""),
        "payload types of noise": good.replace("a=rtpmap:97 ", "a=rtpmap:zz "),
        "two videos": good + good[good.index("m=video") :],
        "zeros": good.replace("a=", "\0="),
        "one letter lines": "\r\n".join("vost") + "\r\n",
        "unknown direction": good.replace("a=recvonly", "a=nowhere"),
        "setup of noise": good.replace("actpass", "perhaps"),
    }
    for name, sdp in broken.items():
        response = await http.post("/api/offer", json={"sdp": sdp, "type": "offer"})
        assert (response.status_code, code_of(response)) == (400, "bad_sdp"), name
        assert (await http.get("/healthz")).json()["sessions"] == 0, name
    assert (await http.post("/api/offer", json={"sdp": good, "type": "offer"})).status_code == 200


async def test_an_unknown_portrait_is_said_so(http: httpx.AsyncClient) -> None:
    body = {"sdp": await offer_sdp(), "type": "offer", "portrait_id": "nobody"}
    response = await http.post("/api/offer", json=body)
    assert (response.status_code, code_of(response)) == (404, "unknown_portrait")


async def test_candidates_are_taken_late(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/offer", json={"sdp": await offer_sdp(), "type": "offer"})
    session_id = answer.json()["session_id"]

    async def patch(*candidates: dict[str, object], session: str = session_id) -> httpx.Response:
        body = {"session_id": session, "candidates": list(candidates)}
        return await http.patch("/api/offer", json=body)

    plain = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host generation 0 ufrag abc"
    hidden = plain.replace("127.0.0.1", "b1b06a29-1b4c.local")
    for text in (plain, hidden, ""):
        response = await patch({"candidate": text, "sdpMid": "0", "sdpMLineIndex": 0})
        assert response.status_code == 204, text
    for text in ("candidate:1 1 udp", "noise", "candidate:1 x udp y 127.0.0.1 z typ host"):
        response = await patch({"candidate": text, "sdpMid": "0", "sdpMLineIndex": 0})
        assert (response.status_code, code_of(response)) == (400, "bad_sdp"), text
    response = await patch({"candidate": plain})
    assert (response.status_code, code_of(response)) == (400, "bad_sdp")
    response = await patch(session="nobody")
    assert (response.status_code, code_of(response)) == (404, "unknown_session")
    response = await http.patch("/api/offer", content=b"{", headers=JSON)
    assert (response.status_code, code_of(response)) == (400, "bad_json")
    response = await http.patch("/api/offer", json={"session_id": session_id})
    assert (response.status_code, code_of(response)) == (422, "bad_request")


async def test_the_prompt_of_a_session_can_change(http: httpx.AsyncClient) -> None:
    body = {"sdp": await offer_sdp(), "type": "offer", "prompt": "sad"}
    path = f"/api/sessions/{(await http.post('/api/offer', json=body)).json()['session_id']}"
    for text, read in (
        ("smile 60%, raised brows", "smile 0.6, brows up 1"),
        ("", "neutral"),
        ("Slightly angry", "angry 0.4"),
    ):
        response = await http.patch(path, json={"prompt": text})
        assert (response.status_code, response.json()["prompt"]) == (200, read), text


async def test_a_prompt_that_cannot_be_shown_is_refused_in_words(http: httpx.AsyncClient) -> None:
    offer = {"sdp": await offer_sdp(), "type": "offer"}
    response = await http.post("/api/offer", json={**offer, "prompt": "older"})
    assert (response.status_code, code_of(response)) == (422, "bad_prompt")
    assert (await http.get("/healthz")).json()["sessions"] == 0
    session = (await http.post("/api/offer", json=offer)).json()["session_id"]
    for body, code in (
        ({"prompt": "smile, pencil sketch"}, "bad_prompt"),
        ({"prompt": "smile 7"}, "bad_prompt"),
        ({"prompt": "smile " * 100}, "bad_request"),
        ({"prompt": 3}, "bad_request"),
        ({"state": "speaking"}, "bad_request"),  # that is not for the client to say
    ):
        response = await http.patch(f"/api/sessions/{session}", json=body)
        assert (response.status_code, code_of(response)) == (422, code), body
    said = await http.patch(f"/api/sessions/{session}", json={"prompt": "smyle"})
    assert "smile" in said.json()["error"]["message"]
    response = await http.patch("/api/sessions/nobody", json={"prompt": "smile"})
    assert (response.status_code, code_of(response)) == (404, "unknown_session")


async def test_closing_a_session_that_is_over_is_no_error(http: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await http.delete("/api/sessions/nobody")).status_code == 204


async def test_unknown_paths_and_methods_answer_in_the_same_form(http: httpx.AsyncClient) -> None:
    for method, path, status, code in (
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/api/offer", 405, "method_not_allowed"),
        ("GET", "/api/portraits/nobody/image", 404, "unknown_portrait"),
        ("GET", "/api/test/events", 404, "not_found"),
    ):
        response = await http.request(method, path)
        assert (response.status_code, code_of(response)) == (status, code), path


async def test_metrics_count_refusals(http: httpx.AsyncClient) -> None:
    await post_picture(http, b"noise")
    text = (await http.get("/metrics")).text
    assert 'portraittalk_refused_total{code="bad_image"} 1.0' in text
    assert "portraittalk_sessions 0.0" in text
    assert "portraittalk_engine_step_seconds_bucket" in text


async def test_the_answer_prefers_vp8_and_offers_the_loopback(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/offer", json={"sdp": await offer_sdp(), "type": "offer"})
    sdp = answer.json()["sdp"]
    video = sdp[sdp.index("m=video") :]
    first = video.split("\r\n")[0].split()[3]
    assert f"a=rtpmap:{first} VP8/90000" in video
    assert " 127.0.0.1 " in sdp
    audio = sdp[sdp.index("m=audio") :].split("m=")[1]
    assert "PCMU" not in audio
    assert "opus" in audio


async def test_the_portraits_pixels_reach_the_engine() -> None:
    seen: list[np.ndarray] = []

    class Watching(FakeEngine):
        def enroll(self, image: np.ndarray, *, face: int | None = None) -> np.ndarray:
            seen.append(image)
            return super().enroll(image)

    app = create_app(Watching(side=64), ServerSettings(), PORTRAIT, "Test")
    async with app.router.lifespan_context(app):
        np.testing.assert_array_equal(seen[0], PORTRAIT)


async def test_what_enrolling_saw_is_answered_and_a_face_can_be_named() -> None:
    asked: list[int | None] = []

    class Seeing(FakeEngine):
        def enroll(self, image: np.ndarray, *, face: int | None = None) -> np.ndarray:
            asked.append(face)
            return super().enroll(image)

        def report(self, identity: np.ndarray) -> PortraitReport:
            return PortraitReport(("Two.",), ((0.1, 0.2, 0.3, 0.4), (0.5, 0.2, 0.8, 0.6)), 2)

    async with asking(Seeing(side=64), ServerSettings()) as http:
        headers = {"Content-Type": "image/png"}
        made = await http.post(
            "/api/portraits?face=2", content=ACCEPTED["png with alpha"](), headers=headers
        )
        assert made.status_code == 201
        assert made.json()["notices"] == ["Two."]
        assert made.json()["faces"] == [[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.8, 0.6]]
        assert made.json()["face"] == 2
        file = ACCEPTED["animated gif"]()
        made = await http.post("/api/portraits", content=file, headers=headers)
        assert made.json()["notices"] == [
            "The picture has several frames; the first one is shown.",
            "Two.",
        ]
        assert asked == [None, 2, None]  # the first one is the bundled portrait
        for wrong in ("0", "x", "-1", "1e9", "99999999999"):
            refused = await http.post(f"/api/portraits?face={wrong}", content=file, headers=headers)
            assert (refused.status_code, code_of(refused)) == (422, "bad_request"), wrong


async def test_an_upload_is_read_as_the_command_line_reads_the_file(tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    class Watching(FakeEngine):
        def enroll(self, image: np.ndarray, *, face: int | None = None) -> np.ndarray:
            seen.append(image)
            return super().enroll(image)

    stored = Image.fromarray(in_space(np.asarray(photo()), "Display P3"))
    file = tmp_path / "phone.png"
    stored.save(file, icc_profile=profile("Display P3"))
    async with asking(Watching(side=64), ServerSettings()) as http:
        headers = {"Content-Type": "image/png"}
        await http.post("/api/portraits", content=file.read_bytes(), headers=headers)
    np.testing.assert_array_equal(seen[1], cast([file], [], "", 0).portraits[0])
    assert np.abs(seen[1].astype(int) - np.asarray(stored)).max() > 10, "the profile counts"


@pytest.mark.parametrize(
    ("error", "code", "closed"),
    [(ApiError(404, "unknown_session", "it is over"), "unknown_session", 1008)]
    + [(WorkerStopped("the engine has stopped"), "engine_stopped", 1011)],
)
async def test_an_open_socket_is_told_what_is_wrong_and_closed(
    error: Exception, code: str, closed: int
) -> None:
    async def late(socket: WebSocket) -> None:
        await socket.accept()
        raise error

    async with serving() as live:
        live.app.router.routes.insert(0, WebSocketRoute("/late", late))
        async with connect(live.url.replace("http", "ws") + "/late", proxy=None) as socket:
            told = json.loads(await socket.recv())
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert (told["type"], told["code"]) == ("error", code)
        assert socket.close_code == closed
