"""A viewer whose place is taken is told so; what another site embeds is served to it."""

from __future__ import annotations

import json
import re

import pytest

from client_example.headless import Viewer
from server.settings import ServerSettings
from tests.server.live import serving, until, watching

pytestmark = pytest.mark.timeout(60)


async def test_a_viewer_whose_place_is_taken_is_told_and_hung_up() -> None:
    async with serving() as live, watching(live) as first:
        told: list[str] = []
        first.control.on("message", told.append)
        second = Viewer(live.url, session_id=first.session_id)
        try:
            await second.connect()
            await until(lambda: second.report.first_frame_s is not None, 10)
            await until(lambda: first.pc.connectionState == "closed", 5)
            ends = [message for text in told if (message := json.loads(text))["type"] == "closing"]
            assert ends == [{"type": "closing", "reason": "replaced"}]
            session = live.service.find_session(str(first.session_id))
            assert session.closed_for is None
            assert len(session.broadcast.outlets) == 1
        finally:
            await second.close()


async def test_the_component_and_all_that_it_imports_are_given_to_an_allowed_page() -> None:
    page = {"Origin": "https://page.example"}
    async with serving(settings=ServerSettings(port=0, allow_origin=(page["Origin"],))) as live:
        seen, waiting = set(), {"/embed.js"}
        while waiting:
            path = waiting.pop()
            seen.add(path)
            answer = await live.http.get(path, headers=page)
            assert answer.status_code == 200, path
            assert answer.headers["Content-Type"].startswith("text/javascript"), path
            assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
            asked = re.findall(r'from "\./(?:page/)?([\w.]+)";', answer.text)
            waiting |= {f"/page/{name}" for name in asked} - seen
        assert "/page/link.js" in seen
