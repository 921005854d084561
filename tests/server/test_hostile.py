"""Nothing that a client sends is answered 5xx: offers and candidates at every door that takes them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.hostile import AIORTC, CHROMIUM, LETTERS, NUMBERS, Besieged, besieged, offers

pytestmark = pytest.mark.timeout(120)
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
DOORS = ("offer", "smallwebrtc", "whep", "whip", "calls")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[asyncio.Runner, Besieged]]:
    with besieged() as both:
        yield both


async def offered(server: Besieged, door: str, sdp: str) -> int:
    """The status of an offer at a door; a refusal must be in our form."""
    text = sdp.encode(errors="surrogatepass")
    if door in ("offer", "smallwebrtc"):
        body: dict[str, Any] = {"sdp": sdp, "type": "offer"}
        body |= {"request_data": {}} if door == "smallwebrtc" else {}
        answer = await server.request("POST", "/api/offer", json=body)
    elif door == "whep":
        made = (await server.http.post("/api/sessions", json={})).json()["session_id"]
        answer = await server.request("POST", f"/whep/{made}", content=text, headers=SDP)
    else:
        path = {"whip": "/whip", "calls": "/v1/realtime/calls"}[door]
        text = text.replace(b"a=recvonly", b"a=sendonly") if door == "whip" else text
        answer = await server.request("POST", path, content=text, headers=SDP)
    if answer.status_code >= 400:
        assert answer.json()["error"]["code"] in ("bad_sdp", "too_large", "bad_request"), answer
    return answer.status_code


@settings(max_examples=250)
@given(st.sampled_from(DOORS), offers())
def test_a_changed_offer_is_answered_or_refused(
    server: tuple[asyncio.Runner, Besieged],
    door: str,
    sdp: str,
) -> None:
    runner, besieged = server
    logged: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        assert runner.run(offered(besieged, door, sdp)) < 500
        runner.run(asyncio.sleep(0))
    finally:
        logging.getLogger().removeHandler(handler)
    assert not logged
    assert not besieged.failures


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("real", [AIORTC, CHROMIUM], ids=["aiortc", "chromium"])
def test_the_offers_themselves_are_taken(
    server: tuple[asyncio.Runner, Besieged], door: str, real: str
) -> None:
    runner, besieged = server
    assert runner.run(offered(besieged, door, real)) in (200, 201)


def without(prefix: str) -> str:
    return "".join(x for x in CHROMIUM.splitlines(keepends=True) if not x.startswith(prefix))


CONTRADICTIONS = {
    "an fmtp without its rtpmap": without("a=rtpmap:111"),
    "a bundle of what is not there": CHROMIUM.replace("BUNDLE 0 1 2", "BUNDLE 7 0 1 2"),
    "two media of one name": CHROMIUM.replace("a=mid:1", "a=mid:0"),
    "no names at all": without("a=mid:"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_an_offer_that_contradicts_itself_is_refused(
    server: tuple[asyncio.Runner, Besieged], door: str, name: str
) -> None:
    runner, besieged = server
    assert runner.run(offered(besieged, door, CONTRADICTIONS[name])) in (400, 422)


CANDIDATE = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host generation 0 ufrag abc"


@st.composite
def candidates(draw: st.DrawFn) -> dict[str, object]:
    words = CANDIDATE.split(" ")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(words) - 1))
        words[at] = draw(st.sampled_from((*NUMBERS, "tcp", "host", "::1")) | st.text(LETTERS))
    number = st.none() | st.integers(-(10**20), 10**20)
    return {
        "candidate": " ".join(words)[:1000],
        "sdpMid": draw(st.none() | st.sampled_from(("0", "1", "", "9"))),
        "sdpMLineIndex": draw(number),
    }


@settings(max_examples=60)
@given(candidates())
def test_a_changed_candidate_is_taken_or_refused(
    server: tuple[asyncio.Runner, Besieged], candidate: dict[str, object]
) -> None:
    runner, besieged = server

    async def send() -> tuple[int, int]:
        http = besieged.http
        made = (await http.post("/api/offer", json={"sdp": AIORTC, "type": "offer"})).json()
        body = {"session_id": made["session_id"], "candidates": [candidate]}
        answer = await http.patch("/api/offer", json=body)
        watch = f"/whep/{made['session_id']}"
        at = (await http.post(watch, content=AIORTC.encode(), headers=SDP)).headers["Location"]
        lines = f"a=mid:0\r\na={candidate['candidate']}\r\na=end-of-candidates\r\n".encode()
        fragment = await besieged.request("PATCH", at, content=lines, headers=FRAGMENT)
        return answer.status_code, fragment.status_code

    plain, trickled = runner.run(send())
    assert plain in (204, 400, 422)
    assert trickled in (204, 422)
    assert not besieged.failures


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ("sdp", "type", "portrait_id", "prompt", "voice", "session_id", "resume", "candidates")
    + ("pc_id", "restart_pc", "request_data", "body", "state", "url", "kind", "host", "port")
)
TAKERS = (
    ("POST", "/api/offer"),
    ("PATCH", "/api/offer"),
    ("POST", "/start"),
    ("POST", "/sessions/x/api/offer"),
    ("PATCH", "/sessions/x/api/offer"),
    ("POST", "/api/sessions"),
    ("PATCH", "/api/sessions/{id}"),
    ("POST", "/api/sessions/{id}/publish"),
    ("POST", "/api/sessions/{id}/livelink"),
)


@settings(max_examples=100)
@given(st.sampled_from(TAKERS), st.dictionaries(NAMES, JSON, max_size=6) | JSON)
def test_any_json_is_taken_or_refused(
    server: tuple[asyncio.Runner, Besieged], taker: tuple[str, str], body: object
) -> None:
    runner, besieged = server
    method, path = taker

    async def send() -> int:
        made = (await besieged.http.post("/api/sessions", json={})).json()["session_id"]
        text = json.dumps(body)
        return (
            await besieged.request(
                method,
                path.format(id=made),
                content=text.encode(),
                headers={"Content-Type": "application/json"},
            )
        ).status_code

    assert runner.run(send()) < 500
    assert not besieged.failures


HEADERS = st.dictionaries(
    st.sampled_from(("Accept", "Content-Type", "If-Match", "Authorization", "Origin", "Range")),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
    | st.sampled_from(
        ("application/json; charset=\xff", "multipart/form-data", "application/sdp;", "Bearer \xe9")
        + (
            'multipart/form-data; boundary="',
            "multipart/form-data; boundary=x",
            "bytes=9-1",
            "http://[",
        )
    ),
)
FORM = b"--x\r\nContent-Disposition: form-data; name*=utf-8''sdp\r\n\r\nv=0\r\n--x\r\n\r\n{\"a\"\r\n--x--"
ASKED = (
    *(("GET", "/", b""), ("GET", "/page/app.js", b""), ("GET", "/openapi.json", b"")),
    *(
        ("POST", "/api/offer", b"{}"),
        ("POST", "/api/portraits", b"GIF89a"),
        ("POST", "/whip", b"v=0"),
    ),
    *(
        ("POST", "/v1/realtime/calls", FORM),
        ("PATCH", "/whip/x/y", b"a=mid:0"),
        ("GET", "/nobody", b""),
    ),
)


@settings(max_examples=150)
@given(st.sampled_from(ASKED), HEADERS, st.text(max_size=20))
def test_any_header_and_any_query_is_taken_or_refused(
    server: tuple[asyncio.Runner, Besieged],
    asked: tuple[str, str, bytes],
    headers: dict[str, str],
    query: str,
) -> None:
    runner, besieged = server
    method, path, body = asked
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    kwargs: dict[str, Any] = {"content": body, "headers": raw}
    kwargs["params"] = {"token": query, "portrait_id": query, "voice": query, query: "1"}
    assert runner.run(besieged.request(method, path, **kwargs)).status_code < 500
    assert not besieged.failures
