"""With a secret every door asks for a token that allows it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from engine.errors import ConfigError
from server.doors.offer import OfferBody
from server.programs.remote_link import RemoteLink
from server.settings import ServerSettings
from server.trust.tokens import ACCESSES
from server.web.routes import Operation, Socket
from tests.server.live import Live, offer_sdp, serving, until, watching
from tests.server.pictures import encoded, photo

pytestmark = pytest.mark.timeout(60)
SECRET = "a secret of more than thirty-two letters"
PUBLIC = {"/", "/embed.js", "/openapi.json", "/healthz", "/readyz", "/status"}
# What is asked for, by hand; a scope too few is what somebody would miss.
ASKED = {
    "GET /metrics": "control",
    "GET /api/config": "view",
    "GET /api/ice-servers": "view",
    "GET /api/portraits": "view",
    "POST /api/portraits": "portraits",
    "DELETE /api/portraits/{id}": "portraits",
    "GET /api/portraits/{id}/image": "view",
    "GET /api/portraits/{id}/consent": "portraits",
    "GET /api/consents": "portraits",
    "GET /api/test/events": "control",
    "GET /api/test/frames": "control",
    "POST /api/offer": "view",
    "PATCH /api/offer": "view",
    "POST /api/sessions": "control",
    "GET /api/sessions/{id}": "view",
    "PATCH /api/sessions/{id}": "view",
    "DELETE /api/sessions/{id}": "view",
    "POST /api/sessions/{id}/interrupt": "control",
    "POST /api/sessions/{id}/say": "speak",
    "GET /api/sessions/{id}/events": "view",
    "POST /api/sessions/{id}/publish": "control",
    "DELETE /api/sessions/{id}/publish": "control",
    "DELETE /api/sessions/{id}/publish/{sender}": "control",
    "POST /api/sessions/{id}/livelink": "control",
    "DELETE /api/sessions/{id}/livelink": "control",
    "DELETE /api/sessions/{id}/livelink/{sender}": "control",
    "POST /start": "speak",
    "POST /sessions/{id}/api/offer": "speak",
    "PATCH /sessions/{id}/api/offer": "speak",
    "POST /v1/realtime/calls": "speak",
    "POST /v1/realtime/calls/{id}/hangup": "speak",
    "GET /whep/{id}": "view",
    "POST /whep/{id}": "view",
    "GET /whep/{id}/{connection}": "view",
    "PATCH /whep/{id}/{connection}": "view",
    "DELETE /whep/{id}/{connection}": "view",
    "GET /whip": "speak",
    "POST /whip": "speak",
    "GET /whip/{id}": "speak",
    "POST /whip/{id}": "speak",
    "GET /whip/{id}/{connection}": "speak",
    "PATCH /whip/{id}/{connection}": "speak",
    "DELETE /whip/{id}/{connection}": "speak",
    "ws /api/speech": "speak",
    "ws /api/sessions/{id}/speech": "speak",
    "ws /api/sessions/{id}/media": "view",
    "ws /v1/realtime": "speak",
}
CONSENT = {"Consent": '{"who": "Ann Lee", "purpose": "a greeting"}'}
BY_PARAMETER = {"ws /api/twilio", "ws /api/sessions/{id}/twilio"}


def token(*scopes: str, sub: str = "ann", ends_in: float = 60.0) -> str:
    claims = {"sub": sub, "scope": " ".join(scopes), "exp": time.time() + ends_in}
    return jwt.encode(claims, SECRET)


def bearer(*scopes: str, sub: str = "ann") -> dict[str, str]:
    return {"Authorization": f"Bearer {token(*scopes, sub=sub)}"}


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    settings = ServerSettings(
        auth_secret=(SECRET,), capacity=8, portraits_kept=8, offers_per_address=99, frame_code=True
    )
    async with serving(settings=settings) as running:
        yield running


async def status_of(
    live: Live, where: str, headers: dict[str, str], query: str = ""
) -> tuple[int, str]:
    """Status and code of an answer."""
    method, path = where.split(" ")
    path = path.replace("{id}", "x").replace("{connection}", "y").replace("{sender}", "z") + query
    if method != "ws":
        answer = await live.http.request(method, path, headers=headers)
        error = answer.json() if answer.status_code >= 400 else {}
        return answer.status_code, error.get("error", {}).get("code", "")
    try:
        url = live.url.replace("http", "ws") + path
        async with connect(url, additional_headers=headers, proxy=None):
            return 101, ""
    except InvalidStatus as error:
        body = json.loads(error.response.body or b"{}")
        return error.response.status_code, body.get("error", {}).get("code", "")


async def test_every_route_asks_for_what_it_should(live: Live) -> None:
    found: dict[str, Any] = {}
    for route in live.app.routes:
        if isinstance(route, Operation) and route.path not in PUBLIC:
            found |= {f"{method} {route.path}": route.access for method in route.terms}
        elif isinstance(route, Operation):
            assert route.access is None
        elif isinstance(route, Socket):
            found[f"ws {route.path}"] = route.access
    assert {w for w, access in found.items() if access is None} == BY_PARAMETER
    assert {w: a for w, a in found.items() if a} == ASKED


async def test_no_door_opens_without_a_token_that_allows_it(live: Live) -> None:
    for where, access in ASKED.items():
        others = [each for each in ACCESSES if each != access]
        assert await status_of(live, where, {}) == (401, "unauthorized"), where
        assert await status_of(live, where, bearer(*others)) == (403, "forbidden"), where
        status, code = await status_of(live, where, bearer(access))
        assert code not in ("unauthorized", "forbidden"), where
        assert status < 500, where
    for path in PUBLIC:
        assert (await live.http.get(path)).status_code == 200, path


async def test_bad_tokens_are_told_why(live: Live) -> None:
    for value, said in (
        (token("view", ends_in=-60), "over"),
        (jwt.encode({"sub": "a", "exp": 9e9}, "x" * 32), "secret"),
        ("noise", "no token"),
    ):
        answer = await live.http.get("/api/config", headers={"Authorization": f"Bearer {value}"})
        assert answer.status_code == 401
        assert said in answer.json()["error"]["message"]
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_where_no_header_can_be_set_the_address_has_the_token(live: Live) -> None:
    query = f"?token={token('view', 'speak')}"
    assert (await status_of(live, "ws /api/speech", {}, query))[0] == 101
    assert (await status_of(live, "GET /api/portraits", {}, query))[0] == 200
    # What changes something needs the header: an address may be followed by accident.
    assert (await status_of(live, "POST /whip", {}, query))[0] == 401
    url = live.url.replace("http", "ws") + "/v1/realtime"
    key = Subprotocol(f"openai-insecure-api-key.{token('speak')}")
    async with connect(url, subprotocols=[Subprotocol("realtime"), key], proxy=None) as socket:
        assert json.loads(await socket.recv())["type"] == "session.created"


async def test_a_call_by_telephone_brings_its_token_as_a_parameter(live: Live) -> None:
    made = await live.http.post("/api/sessions", json={}, headers=bearer("control"))
    url = live.url.replace("http", "ws") + "/api/twilio"
    for given, taken in ((token("speak"), True), (token("view"), False), ("", False)):
        parameters = {"session_id": made.json()["session_id"], "token": given}
        start = {"event": "start", "start": {"streamSid": "a", "customParameters": parameters}}
        async with connect(url, proxy=None) as socket:
            await socket.send(json.dumps(start))
            if taken:
                await until(lambda: len(list(live.service.sessions)[0].broadcast.outlets) == 1, 5)
                continue
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1008


async def test_who_may_only_view_is_not_heard_and_takes_nobodys_place(live: Live) -> None:
    async with watching(_with(live, "view", "speak")) as speaker:
        session = live.service.find_session(str(speaker.session_id))
        await until(lambda: session.microphone is not None, 5)
        heard = session.microphone
        body = OfferBody(sdp=await offer_sdp(), type="offer", session_id=session.id)
        answer = await live.http.post(
            "/api/offer", json=body.model_dump(exclude_none=True), headers=bearer("view")
        )
        assert "resume" not in answer.json()
        assert session.microphone is heard
        assert "a=sendonly" in answer.json()["sdp"]
        assert live.service.connected(session)


def _with(live: Live, *scopes: str) -> Live:
    return Live(f"{live.url}?token={token(*scopes)}", live.http, live.app)


async def test_a_viewer_with_a_token_of_its_own_sees_and_is_not_heard(live: Live) -> None:
    async with watching(_with(live, "view")) as viewer:
        session = live.service.find_session(str(viewer.session_id))
        assert session.microphone is None
        assert viewer.report.first_frame_s is not None


async def test_who_has_no_control_changes_and_ends_their_own_session_alone(live: Live) -> None:
    made = await live.http.post("/api/sessions", json={}, headers=bearer("control", sub="ann"))
    path = f"/api/sessions/{made.json()['session_id']}"
    for sub, status in (("bob", 403), ("ann", 200)):
        body = {"prompt": "smile"}
        answer = await live.http.patch(path, json=body, headers=bearer("view", sub=sub))
        assert answer.status_code == status
    assert (await live.http.delete(path, headers=bearer("view", sub="bob"))).status_code == 403
    assert (
        await live.http.patch(
            path, json={"prompt": ""}, headers=bearer("view", "control", sub="bob")
        )
    ).status_code == 200
    assert (await live.http.delete(path, headers=bearer("view", sub="ann"))).status_code == 204
    assert len(live.service.sessions) == 0


async def test_a_portrait_is_of_the_subject_that_enrolled_it(live: Live) -> None:
    jpeg = encoded(photo(), "JPEG")

    async def enrol(sub: str) -> httpx.Response:
        headers = {**bearer("portraits", sub=sub), "Content-Type": "image/jpeg", **CONSENT}
        return await live.http.post("/api/portraits", content=jpeg, headers=headers)

    async def shown(portrait: str, sub: str) -> tuple[int, int]:
        image = f"/api/portraits/{portrait}/image"
        picture = await live.http.get(image, headers=bearer("view", sub=sub))
        body = {"portrait_id": portrait}
        made = await live.http.post("/api/sessions", json=body, headers=bearer("control", sub=sub))
        return picture.status_code, made.status_code

    anns = (await enrol("ann")).json()["id"]
    assert await shown(anns, "ann") == (200, 201)
    assert await shown(anns, "bob") == (404, 404)
    for _ in range(6):  # more than bob's share of eight: he loses his own
        assert (await enrol("bob")).status_code == 201
    assert await shown(anns, "ann") == (200, 201)


async def test_the_lasting_token_of_encoders_opens_their_doors_alone() -> None:
    settings = ServerSettings(auth_secret=(SECRET,), bearer="lasting", capacity=2)
    async with serving(settings=settings) as live:
        lasting = {"Authorization": "Bearer lasting"}
        assert (await live.http.get("/whip", headers=lasting)).status_code == 204
        assert (await live.http.get("/whip", headers=bearer("speak"))).status_code == 204
        assert (await live.http.get("/whip", headers=bearer("view"))).status_code == 403
        assert (await live.http.get("/api/config", headers=lasting)).status_code == 401


async def test_an_assistants_link_brings_its_token(live: Live) -> None:
    link = RemoteLink(f"{live.url}?token={token('view', 'speak')}")
    await link.open()
    try:
        assert live.service.find_session(link.session_id).subject == "ann"
    finally:
        await link.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "faces.example"])
def test_a_network_is_not_let_in_without_a_secret(host: str) -> None:
    with pytest.raises(ConfigError, match="--auth-secret"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, insecure=True).host == host
    assert ServerSettings(host=host, auth_secret=(SECRET,)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_on_this_machine_alone_no_secret_is_needed(host: str) -> None:
    assert ServerSettings(host=host).host == host


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="32 characters"):
        ServerSettings(auth_secret=("secret",))
