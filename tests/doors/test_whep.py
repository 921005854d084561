"""WHEP: many watch one session, drawn once; the protocol to its letter."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from benchmarks.server_process import ServerProcess, free_port
from client_example.headless import Viewer
from server.session import Session
from server.settings import ServerSettings
from tests.doors.conftest import OpenKit
from tests.doors.one_way import FRAGMENT, SDP, Peer, one_way_offer
from tests.e2e.conftest import FAKE
from tests.server.live import Live, offer_sdp, serving, until, watching

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
