"""The published description is complete, and what it says is so."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Mount

from server.app import create_app
from server.settings import ServerSettings
from server.web.openapi import describe
from server.web.routes import Operation, Socket
from tests.server.fake_engine import FakeEngine
from tests.server.hostile import Besieged, besieged
from tests.server.live import PORTRAIT

pytestmark = pytest.mark.timeout(120)
APP = create_app(FakeEngine(side=64), ServerSettings(), PORTRAIT, "Test")
# By hand, from the documents of each door: what somebody who builds against the server relies on.
PUBLISHED = {
    "/": "GET",
    "/embed.js": "GET",
    "/openapi.json": "GET",
    "/healthz": "GET",
    "/readyz": "GET",
    "/metrics": "GET",
    "/api/config": "GET",
    "/api/ice-servers": "GET",
    "/api/portraits": "GET POST",
    "/api/portraits/{id}": "DELETE",
    "/api/portraits/{id}/image": "GET",
    "/api/portraits/{id}/consent": "GET",
    "/api/consents": "GET",
    "/api/test/events": "GET",
    "/api/test/frames": "GET",
    "/api/offer": "POST PATCH",
    "/api/sessions": "POST",
    "/api/sessions/{id}": "GET PATCH DELETE",
    "/api/sessions/{id}/interrupt": "POST",
    "/api/sessions/{id}/say": "POST",
    "/api/sessions/{id}/events": "GET",
    "/api/sessions/{id}/publish": "POST DELETE",
    "/api/sessions/{id}/publish/{sender}": "DELETE",
    "/api/sessions/{id}/livelink": "POST DELETE",
    "/api/sessions/{id}/livelink/{sender}": "DELETE",
    "/start": "POST",
    "/status": "GET",
    "/sessions/{id}/api/offer": "POST PATCH",
    "/v1/realtime/calls": "POST",
    "/v1/realtime/calls/{id}/hangup": "POST",
    "/whep/{id}": "GET POST",
    "/whep/{id}/{connection}": "GET PATCH DELETE",
    "/whip": "GET POST",
    "/whip/{id}": "GET POST",
    "/whip/{id}/{connection}": "GET PATCH DELETE",
}
SOCKETS = {
    "/api/speech",
    "/api/sessions/{id}/speech",
    "/api/sessions/{id}/media",
    "/api/twilio",
    "/api/sessions/{id}/twilio",
    "/v1/realtime",
}
ENDLESS = "/api/sessions/{id}/events"  # its answer ends with the session


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[asyncio.Runner, Besieged]]:
    with besieged(offers_per_address=1000) as both:
        yield both


@pytest.fixture(scope="module")
def document(server: tuple[asyncio.Runner, Besieged]) -> dict[str, Any]:
    runner, besieged = server
    answer = runner.run(besieged.http.get("/openapi.json"))
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_every_route_is_published_and_no_other(document: dict[str, Any]) -> None:
    found = {path: {method.upper() for method in item} for path, item in document["paths"].items()}
    assert found == {path: set(methods.split()) for path, methods in PUBLISHED.items()}
    assert set(document["x-websockets"]) == SOCKETS
    others = [r for r in APP.routes if not isinstance(r, Operation | Socket)]
    assert [r.path for r in others if isinstance(r, Mount)] == ["/page"]
    assert len(others) == 1


def test_a_route_has_the_methods_that_it_publishes() -> None:
    for route in APP.routes:
        if isinstance(route, Operation):
            known = route.methods or set()
            if isinstance(route.endpoint, type) and issubclass(route.endpoint, HTTPEndpoint):
                known = set(
                    route.endpoint(dict.fromkeys(("type",), "http"), None, None)._allowed_methods
                )  # type: ignore[arg-type]
            assert known - {"HEAD", "OPTIONS"} == set(route.terms), route.path


def test_what_is_asked_and_answered_is_said(document: dict[str, Any]) -> None:
    made = document["paths"]["/api/sessions"]["post"]
    body = made["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = document["components"]["schemas"][body.rpartition("/")[2]]["properties"]
    assert set(fields) == {"portrait_id", "prompt", "voice"}
    assert "201" in made["responses"]
    assert "security" not in made  # this server asks for no tokens
    whip = {p["name"]: p["in"] for p in document["paths"]["/whip/{id}"]["post"]["parameters"]}
    assert whip == {"id": "path"}
    anew = {p["name"] for p in document["paths"]["/whip"]["post"]["parameters"]}
    assert anew == {"portrait_id", "prompt", "voice"}
    closed = describe(APP.routes, "1", secured=True)["paths"]
    assert closed["/api/sessions"]["post"]["security"] == [{"token": ["control"]}]
    assert "security" not in closed["/healthz"]["get"]
    for path, item in document["paths"].items():
        for method, said in item.items():
            assert said["summary"].endswith("."), (method, path)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
QUICK = settings(
    max_examples=6,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
OPERATIONS = [
    pytest.param(method, path, id=f"{method} {path}")
    for path, methods in PUBLISHED.items()
    for method in methods.split()
    if path != ENDLESS
]


def as_text(document: dict[str, Any], method: str, path: str) -> tuple[dict[str, Any], str]:
    """The document with a text in place of a body that is not JSON, and what the body really is."""
    changed = copy.deepcopy(document)
    content = changed["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
    kinds = [kind for kind in content if kind != "application/json"]
    if not kinds:
        return changed, ""
    content.clear()
    content["text/plain"] = {"schema": {"type": "string"}}
    return changed, kinds[0].replace("*", "png")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_anything_that_fits_the_description_is_answered_as_it_says(
    server: tuple[asyncio.Runner, Besieged], document: dict[str, Any], method: str, path: str
) -> None:
    runner, besieged = server
    document, kind = as_text(document, method, path)
    schema = schemathesis.openapi.from_dict(document)
    operation = schema[path][method]

    async def send(case: Any, into: str) -> tuple[httpx.Request, httpx.Response]:
        made = (await besieged.http.post("/api/sessions", json={})).json()["session_id"]
        if into == "a session" and "id" in case.path_parameters:
            case.path_parameters["id"] = made
        asked = case.as_transport_kwargs(base_url="http://localhost")
        given = {k: v for k, v in (asked.get("headers") or {}).items() if v is not None}
        headers = {**given, **({"Content-Type": kind} if kind else {})}
        request = besieged.http.build_request(
            asked["method"],
            asked["url"],
            params=asked.get("params"),
            headers=headers,
            json=asked.get("json"),
            content=asked.get("data"),
        )
        answer = await besieged.http.send(request)
        for session in besieged.app.state.service.sessions:
            await session.close()
        return request, answer

    @QUICK
    @given(operation.as_strategy(), st.sampled_from(("a session", "nothing")))
    def ask(case: Any, into: str) -> None:
        request, answer = runner.run(send(case, into))
        shown = f"{request.method} {request.url} {request.content[:300]!r}: {answer.text[:300]}"
        try:
            case.validate_response(answer, checks=CHECKS)
        except* Failure as failures:
            raise AssertionError(f"{shown}\n{failures.exceptions}") from None

    ask()
    assert not besieged.failures
