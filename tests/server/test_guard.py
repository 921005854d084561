"""Pages of other sites cannot use a server on the visitor's machine; everybody else can."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from engine.errors import ConfigError
from server.app import create_app
from server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine
from tests.server.live import PORTRAIT, offer_sdp
from tests.server.live import serving as live_server
from tests.server.pictures import encoded, photo

pytestmark = pytest.mark.timeout(30)
PICTURE = encoded(photo(), "JPEG")
JPEG = {"Content-Type": "image/jpeg"}
EVIL = {"Origin": "http://evil.example"}
PARTNER = "https://partner.example"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        FakeEngine(side=64), ServerSettings(capacity=1, insecure=True, **settings), PORTRAIT, "Test"
    )
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as http,
    ):
        yield http


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def offer() -> dict[str, str]:
    return {"sdp": await offer_sdp(), "type": "offer"}


async def test_a_foreign_page_can_change_nothing() -> None:
    async with serving() as http:
        for method, path, body in (
            ("POST", "/api/offer", {"json": await offer()}),
            ("PATCH", "/api/offer", {"json": {"session_id": "x", "candidates": []}}),
            ("PATCH", "/api/sessions/x", {"json": {"prompt": "smile"}}),
            ("DELETE", "/api/sessions/x", {}),
            ("POST", "/api/sessions", {"json": {}}),
            ("POST", "/api/sessions/x/interrupt", {}),
            ("POST", "/api/sessions/x/say", {"content": b"RIFF"}),
            ("POST", "/api/portraits", {"content": PICTURE, "headers": JPEG}),
        ):
            for origin in ("http://evil.example", "null", "http://localhost:9999", "http://[", ""):
                headers = {**body.get("headers", {}), "Origin": origin}  # type: ignore[dict-item]
                request = {**body, "headers": headers}
                response = await http.request(method, path, **request)  # type: ignore[arg-type]
                assert code_of(response) == (403, "foreign_origin"), (method, path, origin)
        assert (await http.get("/healthz")).json()["sessions"] == 0
        text = (await http.get("/metrics")).text
        assert 'portraittalk_refused_total{code="foreign_origin"} 40.0' in text


async def test_our_own_page_and_clients_that_are_no_browser_are_let_in() -> None:
    async with serving(offers_per_address=9) as http:
        for headers in (
            {},
            {"Origin": "http://localhost:8080"},
            {"Origin": "https://localhost:8080"},
        ):
            response = await http.post("/api/offer", json=await offer(), headers=headers)
            assert response.status_code == 200, headers
            response = await http.post("/api/portraits", content=PICTURE, headers=JPEG | headers)
            assert response.status_code == 201, headers


async def test_a_foreign_name_that_leads_here_is_not_answered() -> None:
    async with serving() as http:
        for host in (
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "10.0.0.1",
            "a b",
        ):
            response = await http.get("/", headers={"Host": host})
            assert code_of(response) == (400, "unknown_host"), host
            assert "--allow-host" in response.json()["error"]["message"]
        for host in ("localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080"):
            assert (await http.get("/healthz", headers={"Host": host})).status_code == 200, host


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ({"host": "192.168.1.5"}, "192.168.1.5:8080"),
        ({"host": "fd00::5"}, "[fd00::5]:8080"),
        ({"host": "0.0.0.0"}, "192.168.1.5:8080"),
        ({"host": "::"}, "[fd00::5]:8080"),
        ({"allow_host": ("faces.example",)}, "faces.example"),
        ({"allow_host": ("*.faces.example",)}, "a.faces.example"),
        ({"allow_host": ("fd00::7",)}, "[fd00::7]"),
        ({"allow_host": ("*",)}, "anything.example"),
    ],
)
async def test_the_address_listened_on_and_the_allowed_names_are_answered(
    settings: dict[str, Any], host: str
) -> None:
    async with serving(**settings) as http:
        assert (await http.get("/healthz", headers={"Host": host})).status_code == 200
        if "*" not in settings.get("allow_host", ()):
            foreign = await http.get("/healthz", headers={"Host": "evil.example"})
            assert code_of(foreign) == (400, "unknown_host")


async def test_a_body_that_a_browser_would_send_unasked_is_refused() -> None:
    unasked = (
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    )
    async with serving() as http:
        for kind in unasked:
            headers = {"Content-Type": kind} if kind else {}
            for path in ("/api/offer", "/api/portraits"):
                response = await http.post(path, content=b"{}", headers=headers)
                assert code_of(response) == (415, "unsupported_type"), (path, kind)
            for path in ("/api/offer", "/api/sessions/x"):
                response = await http.patch(path, content=b"{}", headers=headers)
                assert code_of(response) == (415, "unsupported_type"), (path, kind)
        for kind in ("image/png", "IMAGE/JPEG", "application/octet-stream"):
            headers = {"Content-Type": kind}
            response = await http.post("/api/portraits", content=PICTURE, headers=headers)
            assert response.status_code == 201, kind
        headers = {"Content-Type": "application/json; charset=utf-8"}
        response = await http.post("/api/offer", content=b"{}", headers=headers)
        assert code_of(response) == (422, "bad_request")


async def test_a_page_that_is_allowed_can_use_everything() -> None:
    async with serving(allow_origin=(PARTNER,)) as http:
        asks = {
            "Origin": PARTNER,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, if-match",
        }
        for path in ("/api/offer", "/api/portraits", "/whip", "/whep/x", "/whep/x/y"):
            preflight = await http.options(path, headers=asks)
            assert preflight.status_code == 200
            assert preflight.headers["Access-Control-Allow-Origin"] == PARTNER
            assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
            assert "content-type" in preflight.headers["Access-Control-Allow-Headers"].lower()
        answer = await http.post("/api/offer", json=await offer(), headers={"Origin": PARTNER})
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == PARTNER
        path = f"/api/sessions/{answer.json()['session_id']}"
        assert (await http.delete(path, headers={"Origin": PARTNER})).status_code == 204
        refused = await http.post("/api/offer", json={}, headers={"Origin": PARTNER})
        assert code_of(refused) == (422, "bad_request")
        assert refused.headers["Access-Control-Allow-Origin"] == PARTNER  # it can read why


async def test_the_token_is_asked_for_under_a_prefix_too() -> None:
    app = create_app(FakeEngine(side=64), ServerSettings(bearer="secret"), PORTRAIT, "Test")
    outer = Starlette(routes=[Mount("/faces", app)])
    transport = httpx.ASGITransport(app=outer)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as http,
    ):
        assert (await http.get("/faces/healthz")).status_code == 200
        assert code_of(await http.get("/faces/whip")) == (401, "unauthorized")
        bearer = {"Authorization": "Bearer secret"}
        assert (await http.get("/faces/whip", headers=bearer)).status_code == 204
        assert (await http.get("/faces/whipped")).status_code == 404


async def test_allowing_one_page_allows_no_other() -> None:
    async with serving(allow_origin=(PARTNER,)) as http:
        asks = {**EVIL, "Access-Control-Request-Method": "POST"}
        preflight = await http.options("/api/offer", headers=asks)
        assert preflight.status_code == 400
        assert "Access-Control-Allow-Origin" not in preflight.headers
        response = await http.post("/api/offer", json=await offer(), headers=EVIL)
        assert code_of(response) == (403, "foreign_origin")
        shown = await http.get("/api/config", headers=EVIL)
        assert "Access-Control-Allow-Origin" not in shown.headers


async def test_no_browser_is_told_that_other_pages_may_come_by_default() -> None:
    async with serving() as http:
        asks = {**EVIL, "Access-Control-Request-Method": "POST"}
        preflight = await http.options("/api/offer", headers=asks)
        assert preflight.status_code == 405
        assert "Access-Control-Allow-Origin" not in preflight.headers


async def test_every_page_can_be_allowed() -> None:
    async with serving(allow_origin=("*",)) as http:
        response = await http.post("/api/offer", json=await offer(), headers=EVIL)
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allow_host", "http://a.example"),
        ("allow_host", "a.example:80"),
        ("allow_host", "a.*.example"),
        ("allow_host", ""),
        ("allow_origin", "a.example"),
        ("allow_origin", "https://a.example/"),
        ("allow_origin", "https://a.example/page"),
        ("allow_origin", "ftp://a.example"),
        ("allow_origin", "null"),
        ("allow_origin", "https://*.example"),
    ],
)
def test_a_name_or_origin_that_would_never_match_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServerSettings(**{name: (value,)})


def test_names_and_origins_can_be_set_by_variables() -> None:
    environ = {
        "PORTRAITTALK__ALLOW_HOST": "faces.example, *.a.example, fd00::1",
        "PORTRAITTALK__ALLOW_ORIGIN": "https://a.example, http://[::1]:3000, http://localhost:3000",
    }
    settings = ServerSettings.merge(environ, {})
    assert settings.allow_host == ("faces.example", "*.a.example", "fd00::1")
    assert settings.allow_origin[1:] == ("http://[::1]:3000", "http://localhost:3000")


SOCKETS = ("/api/speech", "/api/sessions/x/speech")


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_foreign_page_opens_no_socket(path: str) -> None:
    async with live_server() as live:
        url = live.url.replace("http", "ws") + path
        for origin in ("http://evil.example", "null", "http://localhost:9999"):
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, origin=Origin(origin), proxy=None)
            answer = caught.value.response
            assert answer.status_code == 403, origin
            assert json.loads(answer.body or b"{}")["error"]["code"] == "foreign_origin"
        assert len(live.service.sessions) == 0
        text = (await live.http.get("/metrics")).text
        assert 'portraittalk_refused_total{code="foreign_origin"} 3.0' in text


async def test_a_socket_on_a_foreign_name_is_not_answered() -> None:
    async with live_server() as live:
        port = int(live.url.rpartition(":")[2])
        url = "ws://evil.example/api/speech"  # a name that was made to lead here
        with pytest.raises(InvalidStatus) as caught:
            await connect(url, host="127.0.0.1", port=port, proxy=None)
        assert caught.value.response.status_code == 400
        assert json.loads(caught.value.response.body or b"{}")["error"]["code"] == "unknown_host"
        assert len(live.service.sessions) == 0


async def test_our_own_page_an_allowed_one_and_no_browser_at_all_open_a_socket() -> None:
    async with live_server(settings=ServerSettings(allow_origin=(PARTNER,))) as live:
        url = live.url.replace("http", "ws") + "/api/speech"
        for origin in (None, live.url, PARTNER):
            asked = None if origin is None else Origin(origin)
            async with connect(url, origin=asked, proxy=None) as socket:
                assert json.loads(await socket.recv())["type"] == "session"
