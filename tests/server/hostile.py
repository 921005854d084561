"""What a client may do to an offer, and an application to try it on, without a network."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from hypothesis import strategies as st
from starlette.applications import Starlette

from server.app import create_app
from server.settings import ServerSettings
from tests.server.fake_engine import FakeEngine
from tests.server.live import PORTRAIT, offer_sdp

CHROMIUM = (Path(__file__).parent / "offers" / "chromium.sdp").read_bytes().decode()
AIORTC = asyncio.run(offer_sdp())
NUMBERS = ("0", "1", "9", "127", "255", "65536", "4294967296", "-1", "1e9", "")
LETTERS = st.characters(codec="utf-8")


@st.composite
def offers(draw: st.DrawFn) -> str:
    """A real offer with one to four of its lines lost, doubled, exchanged, cut or changed."""
    lines = draw(st.sampled_from((CHROMIUM, AIORTC))).splitlines()
    for _ in range(draw(st.integers(1, 4))):
        _change(draw, lines)
    return "\r\n".join(lines) + "\r\n"


def _change(draw: st.DrawFn, lines: list[str]) -> None:
    at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    line = lines[at]
    place = draw(st.integers(0, len(line)))
    match draw(st.integers(0, 8)):
        case 0:
            del lines[at]
            lines.append(line[:place])
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], line
        case 3:
            lines[at] = line[:place] + draw(LETTERS) + line[place + 1 :]
        case 4:
            lines[at] = re.sub(r"\d+", draw(st.sampled_from(NUMBERS)), line, count=1)
        case 5:
            lines[at] = line[:place]
        case 6:
            lines[at] = " ".join(draw(st.permutations(line.split(" "))))
        case 7:
            lines[at] = line.replace(":", " ", 1)
        case 8:
            lines[at] = line.replace("actpass", "active").replace("recvonly", "sendonly")


class Besieged:
    """The application, and what went wrong behind its answers."""

    def __init__(self, app: Starlette, http: httpx.AsyncClient) -> None:
        self.app, self.http = app, http
        self.failures: list[str] = []

    async def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Ask, and leave nothing open."""
        answer = await self.http.request(method, path, **kwargs)
        for session in self.app.state.service.sessions:
            await session.close()
        return answer


@contextmanager
def besieged(**settings: Any) -> Iterator[tuple[asyncio.Runner, Besieged]]:
    """An application for tests that are not coroutines, as those of hypothesis."""
    app = create_app(FakeEngine(side=64), ServerSettings(capacity=8, **settings), PORTRAIT, "Test")
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    with asyncio.Runner() as runner:
        server = Besieged(app, httpx.AsyncClient(transport=transport, base_url="http://localhost"))
        runner.get_loop().set_exception_handler(
            lambda loop, context: server.failures.append(str(context))
        )
        life = app.router.lifespan_context(app)
        runner.run(life.__aenter__())
        try:
            yield runner, server
        finally:
            runner.run(server.http.aclose())
            runner.run(life.__aexit__(None, None, None))
