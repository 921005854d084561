"""Sessions over HTTP and server-sent events, with the `httpx` client."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.voice import wav
from engine.config import Strengths
from server.doors import sessions as sessions_door
from server.settings import ServerSettings
from tests.doors.hearing import (
    at_48k,
    babble,
    cut_at_ms,
    door,
    listening,
    new_session,
    wholeness,
)
from tests.server.fake_engine import FakeEngine
from tests.server.live import Live, serving, until

pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]


def code_of(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert len(error["message"]) > 5
    return response.status_code, error["code"]


class Stream:
    """The events of a session as SSE; lines that are no events are `comments`."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.events: list[dict[str, Any]] = []
        self.comments = 0
        self.over = False

    async def follow(self) -> None:
        name = ""
        async for line in self.response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                self.events.append(json.loads(value))
                assert self.events[-1]["type"] == name
            elif line:
                assert line.startswith(":")
                self.comments += 1
        self.over = True


@asynccontextmanager
async def events_of(live: Live, session_id: str) -> AsyncIterator[Stream]:
    async with live.http.stream("GET", f"/api/sessions/{session_id}/events") as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        stream = Stream(response)
        task = asyncio.ensure_future(stream.follow())
        try:
            yield stream
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_session_is_made_asked_changed_and_ended(live: Live) -> None:
    made = await live.http.post("/api/sessions", json={"prompt": "smile", "voice": "both"})
    path = made.headers["Location"]
    assert made.status_code == 201
    assert path == f"/api/sessions/{made.json()['session_id']}"
    known = (await live.http.get(path)).json()
    assert known == {
        "session_id": made.json()["session_id"],
        "state": "idle",
        "voice": "both",
        "viewers": 0,
        "buffered_ms": 0,
        "portrait_id": "default",
    }
    changed = await live.http.patch(path, json={"state": "thinking", "prompt": "sad 50%"})
    assert changed.json() == {**known, "state": "thinking", "prompt": "sad 0.5"}
    for _ in range(2):
        nothing = await live.http.post(path + "/interrupt")
        assert nothing.json() == {"utterance": None, "position_ms": 0}
    for _ in range(2):
        assert (await live.http.delete(path)).status_code == 204
    for call in (live.http.get(path), live.http.post(path + "/interrupt")):
        assert code_of(await call) == (404, "unknown_session")


async def test_a_change_is_made_whole_or_not_at_all(live: Live) -> None:
    session = await new_session(live)
    path = f"/api/sessions/{session.id}"
    for body, refusal in (
        ({}, (422, "bad_request")),
        ({"state": "speaking"}, (422, "bad_request")),
        ({"state": "thinking", "prompt": "older"}, (422, "bad_prompt")),
        ({"prompt": "smile", "portrait_id": "x"}, (404, "unknown_portrait")),
        ({"prompt": "smile", "strengths": {"text": 0.5}}, (422, "no_strengths")),
        ({"strengths": {"identity": -1}}, (422, "bad_request")),
    ):
        with session.events.listen() as listener:
            assert code_of(await live.http.patch(path, json=body)) == refusal, body
            assert await listener.next(0.01) is None, body
    assert code_of(await live.http.patch(path, content=b"{}")) == (415, "unsupported_type")


async def test_strengths_are_changed_in_an_open_session() -> None:
    engine = FakeEngine(side=128)
    engine.config = dataclasses.replace(engine.config, profile="sd15")
    shown: list[str] = []
    engine.set_prompt = lambda state, prompt, at=None: shown.append(str(prompt))  # type: ignore[method-assign]
    async with serving(engine) as full:
        session = await new_session(full)
        with listening(session):
            changes = {"prompt": "smile", "strengths": {"identity": 0.5}}
            answer = await full.http.patch(f"/api/sessions/{session.id}", json=changes)
            assert answer.status_code == 200
            assert answer.json()["prompt"].startswith("smile")
            await until(lambda: len(shown) == 2, 5)
    assert shown[1] == str(Strengths(identity=0.5))


@pytest.mark.timing
async def test_a_file_is_said_and_heard_and_an_interruption_says_how_far_it_came(
    live: Live,
) -> None:
    said = babble(1.2, 22_050)
    session = await new_session(live)
    path = f"/api/sessions/{session.id}"
    with listening(session) as ear:
        answer = await live.http.post(f"{path}/say?utterance=hi", content=wav(said, 22_050))
        assert answer.status_code == 202
        assert answer.json() == {"utterance": "hi", "duration_ms": 1200}
        again = await live.http.post(f"{path}/say?utterance=hi", content=wav(said, 22_050))
        assert code_of(again) == (409, "bad_utterance")
        await until(lambda: len(ear.loud_times()) > 10, 5)
        assert (await live.http.get(path)).json()["state"] == "speaking"
        await until(lambda: session.mood == "idle", 5)
        there, off_ms = wholeness(at_48k(said, 22_050), ear.speech("hi"))
        assert there > 0.97
        assert abs(off_ms) <= 50
        for name in ("one", "two"):
            await live.http.post(f"{path}/say?utterance={name}", content=wav(said, 22_050))
        await until(lambda: len(ear.loud_times()) > 60 + 20, 5)
        asked = time.monotonic()
        answer = await live.http.post(path + "/interrupt")
        await asyncio.sleep(0.4)
    assert max(ear.loud_times()) - asked <= 0.15
    assert answer.json()["utterance"] == "one"
    cut_ms = cut_at_ms(at_48k(said, 22_050), ear.speech("one"))
    assert abs(answer.json()["position_ms"] - cut_ms) <= 40
    assert len(ear.speech("two")) == 0


async def test_what_is_no_sound_is_refused_and_leaves_nothing_in_the_queue(live: Live) -> None:
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    listing = b"ffconcat version 1.0\nfile /etc/hostname\n"
    too_long = wav(np.zeros(61 * 8000, np.int16), 8000)
    session = await new_session(live)
    mute = await new_session(live, voice="microphone")
    path = f"/api/sessions/{session.id}/say"
    refused: dict[str, tuple[bytes, tuple[int, str]]] = {
        "nothing": (b"", (422, "bad_sound")),
        "noise": (bytes(range(256)) * 40, (422, "bad_sound")),
        "a play list": (playlist, (422, "bad_sound")),
        "a list of files": (listing, (422, "bad_sound")),
        "no samples": (wav(np.zeros(0, np.int16), 8000), (422, "bad_sound")),
        "more than a minute": (too_long, (422, "bad_sound")),
        "17 MB": (bytes(17 << 20), (413, "too_large")),
    }
    for name, (data, refusal) in refused.items():
        assert code_of(await live.http.post(path, content=data)) == refusal, name
    file = wav(babble(0.2, 8000), 8000)
    long_name = await live.http.post(f"{path}?utterance={'x' * 101}", content=file)
    assert code_of(long_name) == (409, "bad_utterance")
    answer = await live.http.post(f"/api/sessions/{mute.id}/say", content=file)
    assert code_of(answer) == (409, "microphone_only")
    assert code_of(await live.http.post("/api/sessions/x/say")) == (404, "unknown_session")
    with listening(session) as ear:
        assert (await live.http.post(path, content=file)).status_code == 202
        await until(lambda: len(ear.loud_times()) > 5, 3)  # nothing stands in its way


async def test_events_are_the_same_in_the_same_order_over_both_doors(live: Live) -> None:
    session = await new_session(live)
    async with (
        events_of(live, session.id) as stream,
        door(live, f"/api/sessions/{session.id}/speech") as client,
    ):
        await until(lambda: bool(stream.events), 3)
        await live.http.patch(f"/api/sessions/{session.id}", json={"state": "thinking"})
        with listening(session):
            await client.say("begin", utterance="hi")
            await client.socket.send(babble(0.4, 24_000).tobytes())
            await client.say("words", words=[{"text": "hi", "start_ms": 0, "end_ms": 400}])
            await client.say("end")
            await client.event("speaking_stopped")
            await client.say("prompt", prompt="smile")
            await client.say("portrait", portrait_id="default")
            await client.event("portrait")
        await live.http.delete(f"/api/sessions/{session.id}")
        await client.event("closing")
        await until(lambda: stream.over, 3)
    kinds = [event["type"] for event in client.events]
    assert kinds[0] == "session"
    assert kinds[-1] == "closing"
    assert {"ready", "state", "caption", "prompt", "portrait", "viewers"} <= {*kinds}
    order = [k for k in kinds if k in ("speaking_started", "caption", "speaking_stopped")]
    assert order == ["speaking_started", "caption", "speaking_stopped"]
    # One of the two may have come a moment after the other: `session` is what each found.
    assert stream.events[1:] == client.events[1:]


async def test_an_event_stream_is_kept_alive_keeps_its_session_and_may_break_off(
    live: Live,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions_door, "KEEP_ALIVE_S", 0.1)
    monkeypatch.setattr(sessions_door, "PENDING_S", 0.3)
    session = await new_session(live)
    async with events_of(live, session.id) as stream:
        await until(lambda: stream.comments >= 6, 5)
        assert [event["type"] for event in stream.events] == ["session"]
        assert session.closed_for is None
    await until(lambda: session.closed_for == "expired", 3)
    assert code_of(await live.http.get("/api/sessions/x/events")) == (404, "unknown_session")


async def test_a_full_server_says_when_to_come_again() -> None:
    settings = ServerSettings(port=0, max_sessions=1, capacity=1, offers_per_address=2)
    async with serving(settings=settings) as live:
        session = await new_session(live)
        await new_session(live)
        many = await live.http.post("/api/sessions", json={})
        assert code_of(many) == (429, "too_many_offers")
        with listening(session):
            full = await live.http.post("/api/sessions", json={})
            assert code_of(full) == (503, "server_full")
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in (many, full))
