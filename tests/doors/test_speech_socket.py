"""Speech over a WebSocket, with the `websockets` client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import pytest_asyncio
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from benchmarks.voice import wav
from server.settings import ServerSettings
from tests.doors.hearing import (
    Door,
    Ear,
    at_48k,
    babble,
    cut_at_ms,
    door,
    listening,
    loud,
    new_session,
    place_of,
    telephone,
    wholeness,
)
from tests.doors.readme import example
from tests.server.live import Beeper, Live, serving, until, watching

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.timing,
    pytest.mark.asyncio(loop_scope="module"),
]


def path_of(session_id: str | None) -> str:
    return f"/api/sessions/{session_id}/speech"


def as_received(frames: list[av.AudioFrame]) -> Any:
    """Mono sound (N,) of what a WebRTC client got, each packet where its time stamp says."""
    first = int(frames[0].pts or 0)
    out = np.zeros(int(frames[-1].pts or 0) - first + frames[-1].samples, np.int16)
    for frame in frames:
        at = int(frame.pts or 0) - first
        pcm = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
        out[at : at + len(pcm)] = pcm
    return out


async def test_more_than_a_minute_is_refused_and_said_so_and_the_rest_can_follow(
    live: Live,
) -> None:
    said = babble(70, 8000)
    session = await new_session(live)  # nobody receives: nothing is played
    async with door(live, path_of(session.id) + "?rate_hz=8000") as client:
        await client.say("begin", utterance="long")
        await client.socket.send(said[: 8000 * 50].tobytes())
        await client.socket.send(said[8000 * 50 :].tobytes())
        await client.socket.send(said.tobytes())
        await client.say("end")
        told = await client.event("error")
        assert (told["code"], told["utterance"]) == ("speech_full", "long")
        assert 59 <= told["accepted_bytes"] / 16_000 <= 60
        await client.say("begin", utterance="rest")
        await client.socket.send(said[told["accepted_bytes"] // 2 :].tobytes())
        await client.event("error", utterance="rest", accepted_bytes=0)
        assert 59 <= session.speech.buffered_s <= 60
        said_file = await live.http.post(
            f"/api/sessions/{session.id}/say", content=wav(said[:16_000], 8000)
        )
        assert said_file.status_code == 429
        assert int(said_file.headers["Retry-After"]) > 0
        await client.say("interrupt")
        await client.event("interrupted", dropped=["long", "rest"])
        await client.socket.send(said[:800].tobytes())
        await client.say("ping")
        await client.event("pong")
        assert len([e for e in client.events if e["type"] == "error"]) == 2
        assert 0.05 < session.speech.buffered_s < 0.2


BAD_MESSAGES = {
    "no json": ("hello", "bad_json"),
    "deep json": ("[" * 100_000, "bad_json"),
    "long json": (json.dumps({"type": "ping", "x": "x" * 400_000}), "too_large"),
    "a list": ("[]", "bad_request"),
    "an unknown type": ('{"type": "sing"}', "bad_request"),
    "a misspelt field": ('{"type": "begin", "sample_rate": 16000}', "bad_request"),
    "no rate": ('{"type": "begin", "rate_hz": 0}', "bad_format"),
    "an id in use": ('{"type": "begin", "utterance": "first"}', "bad_utterance"),
    "words of no time": ('{"type": "words", "words": [{"text": "a"}]}', "bad_request"),
    "a word that never ends": (
        '{"type": "words", "words": [{"text": "a", "start_ms": 0, "end_ms": 1e999}]}',
        "bad_request",
    ),
    "a state of ours": ('{"type": "state", "state": "speaking"}', "bad_request"),
    "a prompt that cannot be shown": ('{"type": "prompt", "prompt": "older"}', "bad_prompt"),
    "nobody's portrait": ('{"type": "portrait", "portrait_id": "x"}', "unknown_portrait"),
}


async def test_a_bad_message_is_answered_and_changes_nothing(live: Live) -> None:
    session = await new_session(live)
    async with door(live, path_of(session.id)) as client:
        await client.say("begin", utterance="first")
        for turn, (name, (message, code)) in enumerate(BAD_MESSAGES.items()):
            await client.socket.send(message)
            told = await client.event("error", nth=turn + 1)
            assert (told["code"], len(told["message"]) > 5) == (code, True), name
        await client.socket.send(b"\0" * 4801)  # the utterance goes on; half a sample waits
        await client.say("ping")
        await client.event("pong")
        assert session.speech.buffered_s > 0.04
        assert session.mood == "idle"
        with contextlib.suppress(ConnectionClosed):
            await client.socket.send(b"\0" * (17 << 20))
        await asyncio.wait_for(client.socket.wait_closed(), 5)
        assert client.socket.close_code == 1009
    assert live.service.find_session(session.id) is session


REFUSALS: dict[str, tuple[Callable[[str], str], int, str]] = {
    "no such session": (lambda id: path_of("nobody"), 404, "unknown_session"),
    "a rate of noise": (lambda id: path_of(id) + "?rate_hz=fast", 422, "bad_request"),
    "a rate not taken": (lambda id: path_of(id) + "?rate_hz=4000", 422, "bad_format"),
    "a rate not given": (lambda id: path_of(id) + "?listen=4000", 422, "bad_format"),
    "an unknown encoding": (lambda id: path_of(id) + "?encoding=mp3", 422, "bad_request"),
    "a misspelt field": (lambda id: path_of(id) + "?sample_rate=16000", 422, "bad_request"),
    "nobody's portrait": (lambda id: "/api/speech?portrait_id=x", 404, "unknown_portrait"),
    "a prompt of noise": (lambda id: "/api/speech?prompt=older", 422, "bad_prompt"),
    "a microphone alone": (lambda id: path_of(id), 409, "microphone_only"),
    "no place": (lambda id: "/api/speech", 503, "server_full"),
}


async def test_what_cannot_be_is_an_http_status_in_place_of_the_handshake() -> None:
    async with serving(settings=ServerSettings(port=0, max_sessions=1, capacity=1)) as live:
        spoken = await new_session(live)
        mute = await new_session(live, voice="microphone")
        for name, (path, status, code) in REFUSALS.items():
            session = mute if code == "microphone_only" else spoken
            if code == "server_full":
                listening(spoken).__enter__()
            with pytest.raises(InvalidStatus) as refused:
                await connect(live.url.replace("http", "ws", 1) + path(session.id), proxy=None)
            response = refused.value.response
            assert response.status_code == status, name
            assert json.loads(response.body or b"")["error"]["code"] == code, name
            assert ("Retry-After" in response.headers) == (status == 503), name
        assert len(live.service.sessions) == 2


def narrow_the_way_out() -> None:
    """Let the system keep little of what the server sends: it would take megabytes to fill it."""
    for known in gc.get_objects():
        if type(known) is WebSocketsSansIOProtocol:
            known.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
            )


async def test_a_client_that_reads_nothing_holds_nobody_up_and_is_told_what_it_missed(
    live: Live,
) -> None:
    session = await new_session(live)
    url = live.url.replace("http", "ws", 1) + path_of(session.id)
    with listening(session):
        async with (
            connect(url, proxy=None, max_queue=1, compression=None, close_timeout=0.2) as deaf,
            door(live, path_of(session.id)) as client,
        ):
            begin = json.dumps({"type": "begin", "utterance": "\U0010ffff" * 100})
            narrow_the_way_out()
            for _ in range(1000):  # each but the first is answered by an error of 1200 bytes
                await deaf.send(begin)
            await deaf.send('{"type": "interrupt"}')
            await deaf.send('{"type": "state", "state": "thinking"}')
            await client.event("state", state="thinking", limit_s=20)
            await deaf.send(babble(0.2, 24_000).tobytes())
            asked = time.monotonic()
            await client.event("speaking_started")
            assert time.monotonic() - asked < 0.4
            missed = False
            async with asyncio.timeout(10):
                while not missed:
                    missed = json.loads(await deaf.recv()).get("code") == "events_missed"


async def test_an_interruption_ends_the_old_sound_and_says_how_far_it_came(live: Live) -> None:
    old, new = babble(10, 48_000, seed=1), babble(0.5, 48_000, seed=2)
    async with watching(live) as viewer:
        at_viewer = Ear()
        viewer.on_sound.append(lambda f: at_viewer.hear(f.to_ndarray().reshape(-1)))
        session = live.service.find_session(str(viewer.session_id))
        path = path_of(viewer.session_id) + "?rate_hz=48000"
        with listening(session) as ear:
            async with door(live, path) as client:
                await client.say("begin", utterance="old")
                await client.socket.send(old.tobytes())
                await client.say("end")
                await client.say("begin", utterance="never")
                await client.socket.send(old.tobytes())
                await client.event("speaking_started")
                await asyncio.sleep(0.5)
                asked = time.monotonic()
                await client.say("interrupt")
                told = await client.event("interrupted")
                await asyncio.sleep(0.4)
                ended = max(at_viewer.loud_times())
                await client.socket.send(new.tobytes())  # at once a new utterance
                await client.say("end")
                await client.event("speaking_stopped", nth=2)
    assert ended - asked <= 0.15
    assert (told["utterance"], told["dropped"]) == ("old", ["never"])
    assert abs(told["position_ms"] - cut_at_ms(old, ear.speech("old"))) <= 40
    assert len(ear.speech("never")) == 0
    assert wholeness(new, ear.speech()[len(ear.speech("old")) :])[0] > 0.97
    assert client.types("speaking_started", "speaking_stopped", "interrupted") == [
        "speaking_started",
        "speaking_stopped",
        "interrupted",
        "speaking_started",
        "speaking_stopped",
    ]


class Spoken(NamedTuple):
    """What ten seconds came to."""

    said: Any
    words: list[dict[str, Any]]
    client: Door
    ear: Ear
    received: list[tuple[float, av.AudioFrame]]
    began: float
    stopped: dict[str, Any]


async def say_ten_seconds(live: Live, begun: asyncio.Event) -> Spoken:
    said = babble(10, 24_000)
    words = [{"text": f"w{i}", "start_ms": 500 * i, "end_ms": 500 * i + 400} for i in range(20)]
    received: list[tuple[float, av.AudioFrame]] = []
    async with watching(live) as viewer:
        viewer.on_sound.append(lambda frame: received.append((time.monotonic(), frame)))
        session = live.service.find_session(str(viewer.session_id))
        async with door(live, path_of(viewer.session_id)) as client:
            with listening(session) as ear:
                await client.say("begin", utterance="long")
                began = time.monotonic()
                for i in range(20):
                    await client.socket.send(said[i * 12_000 : (i + 1) * 12_000].tobytes())
                    await asyncio.sleep(0.05)
                await client.say("words", words=words)
                await client.say("end")
                begun.set()
                stopped = await client.event("speaking_stopped", limit_s=20)
                await asyncio.sleep(0.3)
            assert max(e["buffered_ms"] for e in client.events if e["type"] == "buffer") > 5000
            assert client.types("speaking_started", "speaking_stopped", "closing") == [
                "speaking_started",
                "speaking_stopped",
            ]
    return Spoken(said, words, client, ear, received, began, stopped)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ten_seconds(live: Live) -> AsyncIterator[asyncio.Task[Spoken]]:
    """Ten seconds that are spoken while the tests that ask for them go on."""
    begun = asyncio.Event()
    task = asyncio.ensure_future(say_ten_seconds(live, begun))
    await asyncio.wait_for(begun.wait(), 10)
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.usefixtures("ten_seconds")
async def test_what_was_on_its_way_when_somebody_else_interrupts_is_not_spoken(live: Live) -> None:
    first, in_flight, fresh = (babble(0.5, 24_000, seed=i) for i in range(3, 6))
    session = await new_session(live)
    with listening(session) as ear:
        async with door(live, path_of(session.id)) as client:
            await client.socket.send(first.tobytes())
            await client.event("speaking_started")
            answer = await live.http.post(f"/api/sessions/{session.id}/interrupt")
            told = await client.event("interrupted")
            assert answer.json()["utterance"] == told["utterance"]
            assert answer.json()["position_ms"] == told["position_ms"]
            await client.socket.send(in_flight.tobytes())
            await client.say("begin", utterance="fresh")
            await client.socket.send(fresh.tobytes())
            await client.say("end")
            await client.event("speaking_stopped", utterance="fresh")
            await asyncio.sleep(0.1)
    assert place_of(at_48k(in_flight, 24_000), ear.sound)[1] < 0.3
    assert wholeness(at_48k(fresh, 24_000), ear.speech("fresh"))[0] > 0.97


@pytest.mark.usefixtures("ten_seconds")
async def test_two_doors_speak_one_after_the_other_in_the_order_they_began(live: Live) -> None:
    session = await new_session(live)
    path = path_of(session.id)
    with listening(session):
        async with door(live, path) as one, door(live, path) as two:
            for turn, client in enumerate((one, two, one)):
                await client.say("begin", utterance=f"u{turn}")
                await client.socket.send(babble(0.2, 24_000).tobytes())
                await client.say("end")
                await client.say("ping")
                await client.event("pong", nth=1 + turn // 2)
            await two.event("speaking_stopped", utterance="u2")
            for client in (one, two):
                spoken = [e for e in client.events if e["type"].startswith("speaking_")]
                assert [e["utterance"] for e in spoken] == ["u0", "u0", "u1", "u1", "u2", "u2"]
            moods = [e["state"] for e in one.events if e["type"] == "state"]
            assert (moods[0], moods[-1]) == ("speaking", "idle")


@pytest.mark.usefixtures("ten_seconds")
async def test_telephone_sound_is_understood(live: Live) -> None:
    await asyncio.gather(call(live, "ulaw", "mulaw"), call(live, "alaw", "alaw"))


async def call(live: Live, encoding: str, law: str) -> None:
    said = babble(0.6, 8000, seed=7)
    data = telephone(said, law)
    assert len(data) == len(said)
    session = await new_session(live)
    with listening(session) as ear:
        path = f"{path_of(session.id)}?rate_hz=8000&encoding={encoding}"
        async with door(live, path) as client:
            for i in range(0, len(data), 333):
                await client.socket.send(data[i : i + 333])
            await client.say("end")
            await client.event("speaking_stopped", position_ms=600)
    assert wholeness(at_48k(said, 8000), ear.speech())[0] > 0.97


@pytest.mark.usefixtures("ten_seconds")
async def test_the_viewers_microphone_is_heard_by_the_assistant(live: Live) -> None:
    async with watching(live, Beeper()) as viewer:
        async with door(live, path_of(viewer.session_id) + "?listen=16000") as client:
            await until(lambda: sum(map(len, client.microphone)) > 2 * 16_000, 10)
            pcm = np.frombuffer(b"".join(client.microphone), np.int16)
    rising = np.flatnonzero(np.diff((np.abs(pcm.astype(int)) > 4000).astype(int)) == 1)
    beeps = rising[np.diff(rising, prepend=-16_000) > 4000]
    assert 1 <= len(beeps) <= 3  # a second hears one or two; every 700 ms
    assert np.abs(np.diff(beeps) - 11_200).max(initial=0) < 800


@pytest.mark.usefixtures("ten_seconds")
async def test_a_socket_that_opens_a_session_ends_it_and_one_that_joins_does_not(
    live: Live,
) -> None:
    async with door(live, "/api/speech?prompt=smile&voice=both") as client:
        opened = live.service.find_session(client.events[0]["session_id"])
        assert client.events[0]["voice"] == "both"
        joined = await new_session(live)
        async with door(live, path_of(joined.id)) as other:
            await other.socket.send(babble(0.2, 24_000).tobytes())
            await other.say("state", state="thinking")
            await other.event("state", state="thinking")
        await client.socket.close()
    await until(lambda: opened.closed_for is not None, 5)
    assert opened.closed_for == "door_closed"
    await asyncio.sleep(0.1)
    assert joined.closed_for is None
    with listening(joined):  # what was said by who is gone is spoken to its end
        await until(lambda: not joined.speech.busy and joined.mood == "idle", 5)


@pytest.mark.usefixtures("ten_seconds")
async def test_a_session_that_ends_says_why_and_closes_its_sockets(live: Live) -> None:
    session = await new_session(live)
    async with door(live, path_of(session.id) + "?listen=8000") as client:
        assert (await live.http.delete(f"/api/sessions/{session.id}")).status_code == 204
        await client.event("closing", reason="client")
        await asyncio.wait_for(client.socket.wait_closed(), 5)
        assert (client.socket.close_code, client.socket.close_reason) == (1000, "client")


@pytest.mark.usefixtures("ten_seconds")
async def test_the_readmes_example_gives_an_assistant_its_face(live: Live) -> None:
    said = babble(0.5, 24_000)
    names = example("/api/speech", live.url)
    links: list[str] = []
    names["print"] = links.append
    saying = asyncio.ensure_future(names["say"](said.tobytes()))
    await until(lambda: bool(links), 5)
    address, session_id = links[0].split("/?session=")
    assert address == live.url
    with listening(live.service.find_session(session_id)) as ear:
        assert await asyncio.wait_for(saying, 5) == 500
    assert wholeness(at_48k(said, 24_000), ear.speech())[0] > 0.97


async def test_ten_seconds_sent_in_one_come_out_whole_in_step_with_their_captions(
    ten_seconds: asyncio.Task[Spoken],
) -> None:
    said, words, client, ear, received, began, stopped = await ten_seconds
    assert stopped == {
        "type": "speaking_stopped",
        "utterance": "long",
        "position_ms": 10_000,
        "interrupted": False,
    }
    original = at_48k(said, 24_000)
    for heard in (
        ear.speech("long"),
        ear.sound,
        as_received([frame for _, frame in received]),
    ):
        there, off_ms = wholeness(original, heard)
        assert there > 0.97
        assert abs(off_ms) <= 50
    first = next(at for at, frame in received if loud(frame.to_ndarray()))
    assert first - began <= 0.3
    captions = [e for e in client.events if e["type"] == "caption"]
    assert [e["text"] for e in captions] == [w["text"] for w in words]
    spoken = client.when(await client.event("speaking_started"))
    late = [client.when(e) - spoken - e["start_ms"] / 1000 for e in captions]
    assert abs(np.median(late)) < 0.1
