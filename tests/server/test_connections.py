"""Clients that are slow, idle or too many keep nobody else from the server."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from benchmarks.server_process import ServerProcess
from server.settings import ServerSettings
from server.web import connections
from server.web.connections import Connection, Doorkeeper
from server.web.uploads import UploadLimits
from tests.server.live import PORTRAIT, FakeEngine, create_app

pytestmark = pytest.mark.timeout(90)
FAKE = (sys.executable, "-m", "tests.server.fake_server")
HEAD = b"POST /api/offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def descriptors(most: int) -> Iterator[None]:
    """Let processes that are started inside the block have so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def crowding() -> float:
    """How many times longer than alone a computation takes now: other work shares the machine."""
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.02:
        pass
    return (time.monotonic() - began) / 0.02


def test_two_thousand_idle_sockets_are_no_trouble(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"only {hard} descriptors are allowed here")
    log = tmp_path / "log.txt"
    with contextlib.ExitStack() as stack:
        with descriptors(1024):
            server = stack.enter_context(ServerProcess(log, FAKE))
        stack.enter_context(descriptors(4096))
        crowded = 1.0
        began = time.monotonic()
        for _ in range(2000):
            idle = stack.enter_context(socket.socket())
            idle.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                idle.connect(("127.0.0.1", server.port))
        slowest = 0.0
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            while time.monotonic() - began < 3:
                asked = time.monotonic()
                assert http.get("/healthz", headers={"Connection": "close"}).status_code == 200
                slowest = max(slowest, time.monotonic() - asked)
                crowded = max(crowded, crowding())
                time.sleep(0.1)
        lasted = time.monotonic() - began
        assert slowest < crowded
        assert len(log.read_text().splitlines()) <= lasted + 2


class Transport(asyncio.Transport):
    """What a connection sees of the network."""

    def __init__(self, address: str) -> None:
        super().__init__(extra={"peername": (address, 1), "sockname": ("10.0.0.1", 80)})
        self.gone = False
        self.protocol: asyncio.BaseProtocol | None = None

    def abort(self) -> None:
        self.gone = True

    def close(self) -> None:
        self.gone = True

    def is_closing(self) -> bool:
        return self.gone

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""


class Port:
    """A port with the limits of `keeper`."""

    def __init__(self, keeper: Doorkeeper) -> None:
        async def never(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.Event().wait()

        self._config, self._keeper = uvicorn.Config(never, log_config=None), keeper
        self._config.load()
        self._state = ServerState()

    def connect(self, address: str = "10.0.0.9") -> tuple[Connection, Transport]:
        made = Connection(self._keeper, self._config, self._state, {})
        transport = Transport(address)
        transport.protocol = made
        made.connection_made(transport)
        return made, transport


async def test_who_waits_longest_makes_room_for_who_comes() -> None:
    port = Port(Doorkeeper(most=3, per_address=0))
    before = [port.connect() for _ in range(3)]
    before[0][0].data_received(HEAD + b"Content-Length: 9\r\n\r\n")  # has asked for something
    _, new = port.connect()
    assert [transport.gone for _, transport in before] == [False, True, False]
    assert not new.gone


async def test_where_all_have_asked_the_new_one_goes() -> None:
    port = Port(Doorkeeper(most=2, per_address=0))
    for _ in range(2):
        connection, transport = port.connect()
        connection.data_received(HEAD + b"Content-Length: 9\r\n\r\n")
        assert not transport.gone
    _, new = port.connect()
    assert new.gone


async def test_an_address_has_its_share_and_a_proxy_on_this_machine_has_none() -> None:
    port = Port(Doorkeeper(most=100, per_address=2))
    assert [port.connect()[1].gone for _ in range(3)] == [False, False, True]
    assert not port.connect("10.0.0.10")[1].gone
    assert not any(port.connect("127.0.0.1")[1].gone for _ in range(5))


@pytest.mark.parametrize(
    ("sent", "limit"),
    [(b"", "HEAD_S"), (HEAD, "HEAD_S"), (HEAD + b"Content-Length: 9\r\n\r\n{", "BODY_S")],
    ids=["nothing", "half a head", "half a body"],
)
async def test_what_takes_too_long_is_hung_up(
    sent: bytes, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 30.0)
    monkeypatch.setattr(connections, "BODY_S", 30.0)
    monkeypatch.setattr(connections, limit, 0.2)
    connection, transport = Port(Doorkeeper(9, 0)).connect()
    if sent:
        connection.data_received(sent)
    for _ in range(3 if sent else 0):  # a drop now and then does not help
        await asyncio.sleep(0.03)
        connection.data_received(b"X")
    assert not transport.gone
    await asyncio.sleep(0.2)
    assert transport.gone


def test_the_limit_leaves_descriptors_for_the_media(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    assert connections.most_connections(ServerSettings()) == 768
    assert connections.most_connections(ServerSettings(connections=9)) == 9


async def asked(body: AsyncIterator[bytes], **limits: float) -> tuple[int, str]:
    """Status and code of an offer with that body."""
    app = create_app(FakeEngine(side=64), ServerSettings(), PORTRAIT, "Test")
    async with app.router.lifespan_context(app):
        app.user_middleware = [m for m in app.user_middleware if m.cls is not UploadLimits]
        app.add_middleware(UploadLimits, **limits)  # type: ignore[arg-type]
        app.user_middleware.append(app.user_middleware.pop(0))  # innermost, as it is
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            headers = {"Content-Type": "application/json"}
            answer = await http.post("/api/offer", content=body, headers=headers)
            again = await http.post("/api/offer", content=b"{}", headers=headers)
    assert again.status_code == 422  # what the first held was given back
    return answer.status_code, answer.json()["error"]["code"]


async def test_bodies_together_have_a_limit() -> None:
    async def large() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1000)

    assert await asked(large(), most_bytes=4000) == (503, "uploads_full")


async def test_a_body_that_dribbles_in_is_told_so() -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"{"
            await asyncio.sleep(0.05)

    assert await asked(slow(), limit_s=0.2) == (408, "too_slow")
