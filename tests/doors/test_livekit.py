"""LiveKit Agents: the real `AvatarRunner`, audio outputs, data-stream receiver and `AgentSession`.

There is no LiveKit server here: `livekit_hub` carries what one would.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("livekit.agents", reason="needs pip install 'portraittalk[livekit]'")

from livekit import api, rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice.avatar import QueueAudioOutput
from typer.testing import CliRunner

from engine.errors import BackendUnavailable, ConfigError
from server import livekit_worker
from server.doors import livekit as door
from server.programs.link import Link, LocalLink
from server.programs.remote_link import RemoteLink
from server.settings import ServerSettings
from tests.doors import livekit_hub
from tests.doors.readme import example
from tests.server.live import Live, until
from tests.server.live import serving as serve

pytestmark = pytest.mark.timeout(60)
RATE_HZ = 24_000
KEYS = {
    "LIVEKIT_URL": "ws://127.0.0.1:9",
    "LIVEKIT_API_KEY": livekit_hub.KEY,
    "LIVEKIT_API_SECRET": livekit_hub.SECRET,
}


def serving() -> AbstractAsyncContextManager[Live]:
    """A server that spends no time on measuring itself."""
    return serve(settings=ServerSettings(port=0, capacity=4))


def tone(seconds: float) -> list[rtc.AudioFrame]:
    at = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    pcm = (8000 * np.sin(2 * np.pi * 200 * at)).astype("<i2")
    cuts = [pcm[i : i + 960] for i in range(0, len(pcm), 960)]
    return [rtc.AudioFrame(cut.tobytes(), RATE_HZ, 1, len(cut)) for cut in cuts]


async def spoken(seconds: float) -> AsyncIterator[rtc.AudioFrame]:
    for frame in tone(seconds):
        yield frame


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> type[livekit_hub.HubRoom]:
    """Every `rtc.Room` that is made is one of a hub."""
    hub = livekit_hub.new_hub()
    monkeypatch.setattr(rtc, "Room", hub)
    return hub


class Audience:
    """Who subscribes to the avatar's tracks."""

    def __init__(self, participant: livekit_hub.Participant) -> None:
        self.shown: list[tuple[float, rtc.VideoFrame]] = []
        self.heard: list[tuple[float, int]] = []  # when, the loudest sample of 10 ms
        self._of = participant
        self._streams: list[Any] = []
        self._tasks = [asyncio.create_task(part) for part in (self._watch(), self._listen())]

    async def _track(self, name: str) -> Any:
        await until(lambda: name in self._of.track_publications, 20)
        return self._of.track_publications[name].track

    async def _watch(self) -> None:
        stream = rtc.VideoStream.from_track(track=await self._track("avatar_video"))
        self._streams.append(stream)
        async for event in stream:
            self.shown.append((time.monotonic(), event.frame))

    async def _listen(self) -> None:
        track = await self._track("avatar_audio")
        stream = rtc.AudioStream.from_track(track=track, sample_rate=RATE_HZ, num_channels=1)
        self._streams.append(stream)
        async for event in stream:
            pcm = np.frombuffer(event.frame.data, np.int16).astype(int)
            self.heard.append((time.monotonic(), int(np.abs(pcm).max())))

    def loud(self) -> list[float]:
        """When 10 ms of the voice came."""
        return [at for at, peak in self.heard if peak > 500]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._streams:
            await stream.aclose()


@asynccontextmanager
async def run(
    link: Link, rooms: type[livekit_hub.HubRoom]
) -> AsyncIterator[tuple[QueueAudioOutput, Audience]]:
    """A real runner behind a queue, and who looks on."""
    room = rooms()
    await room.connect("", livekit_hub.token("avatar"))
    output = QueueAudioOutput(sample_rate=RATE_HZ, wait_playback_start=True)
    await link.open()
    runner = await door.make_runner(room, link, output)
    await runner.start()
    assert room.me is not None
    audience = Audience(room.me)
    try:
        yield output, audience
    finally:
        await audience.close()
        await runner.aclose()
        await link.close()


def drawn(how: str, live: Live) -> Link:
    return RemoteLink(live.url) if how == "server" else LocalLink(live.service)


async def say(output: QueueAudioOutput, seconds: float) -> None:
    for frame in tone(seconds):
        await output.capture_frame(frame)
    output.flush()


@pytest.mark.parametrize("how", ["server", "process"])
async def test_a_segment_is_played_whole_with_pictures_before_and_after(
    how: str, rooms: type[livekit_hub.HubRoom]
) -> None:
    async with serving() as live, run(drawn(how, live), rooms) as (output, audience):
        started: list[float] = []
        output.on("playback_started", lambda event: started.append(time.monotonic()))
        await until(lambda: len(audience.shown) > 10, 20)  # alive while it is silent
        assert not started
        assert not audience.loud()
        for length in (1.0, 0.5):
            began = time.monotonic()
            await say(output, length)
            done = await asyncio.wait_for(output.wait_for_playout(), 15)
            assert not done.interrupted
            assert done.playback_position == pytest.approx(length, abs=0.002)
            assert began + length < time.monotonic()
        assert len(started) == 2
        await until(lambda: len(audience.loud()) >= 148, 5)
        count = len(audience.shown)
        await until(lambda: len(audience.shown) > count + 10, 5)
        assert (audience.shown[0][1].width, audience.shown[0][1].height) == (128, 128)


@pytest.mark.parametrize("how", ["server", "process"])
async def test_a_cleared_buffer_is_silent_and_answers_with_the_position(
    how: str, rooms: type[livekit_hub.HubRoom]
) -> None:
    async with serving() as live, run(drawn(how, live), rooms) as (output, audience):
        await say(output, 10.0)
        await until(lambda: len(audience.loud()) > 50, 20)
        output.clear_buffer()
        cleared = time.monotonic()
        done = await asyncio.wait_for(output.wait_for_playout(), 5)
        assert done.interrupted
        await asyncio.sleep(0.5)
        heard = 0.01 * len(audience.loud())
        assert max(audience.loud()) - cleared < 0.4  # of the 10 s; less on a quiet machine
        assert abs(done.playback_position - heard) < 0.2
        [session] = live.service.sessions
        assert not session.speech.busy

        await say(output, 0.4)  # the next segment begins at 0 again
        done = await asyncio.wait_for(output.wait_for_playout(), 10)
        assert (done.interrupted, round(done.playback_position, 2)) == (False, 0.4)


@asynccontextmanager
async def agent(live: Live, rooms: type[livekit_hub.HubRoom]) -> AsyncIterator[tuple[Any, Any]]:
    """A running agent whose avatar has joined its room."""
    room = rooms()
    await room.connect("", livekit_hub.token("agent-1", kind="agent"))
    session: AgentSession = AgentSession()
    avatar = door.AvatarSession(url=live.url)
    await avatar.start(session, room)
    try:
        await avatar.wait_for_join()
        await session.start(Agent(instructions=""), record=False)
        yield session, avatar
    finally:
        await session.aclose()
        await avatar.aclose()


async def test_an_agent_speaks_through_its_avatar_and_is_interrupted(
    rooms: type[livekit_hub.HubRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    async with serving() as live:
        async with agent(live, rooms) as (session, avatar):
            member = rooms.hub[door.IDENTITY].me
            assert member is not None
            assert member.kind == livekit_hub.AGENT
            assert member.attributes == {"lk.publish_on_behalf": "agent-1"}
            handle = session.say("one second", audio=spoken(1.0))
            await asyncio.wait_for(handle.wait_for_playout(), 15)
            handle = session.say("a long one", audio=spoken(20.0))
            starts = ("lk.playback_started", "")
            await until(lambda: [w[1:] for w in rooms.wire].count(starts) == 2, 15)
            await asyncio.sleep(0.5)
            session.interrupt()
            await asyncio.wait_for(handle.wait_for_playout(), 5)
            assert handle.interrupted
            await avatar.aclose()
            await until(lambda: not len(live.service.sessions), 5)
            assert door.IDENTITY not in rooms.hub
        calls = [(who, what) for who, what, _ in rooms.wire]
        me, it = "agent-1", door.IDENTITY
        assert calls == [
            (me, "lk.audio_stream"),
            (it, "lk.playback_started"),
            (it, "lk.playback_finished"),
            (me, "lk.audio_stream"),
            (it, "lk.playback_started"),
            (me, "lk.clear_buffer"),
            (it, "lk.playback_finished"),
        ]
        whole, cut = (json.loads(w[2]) for w in rooms.wire if w[1] == "lk.playback_finished")
        assert not whole["interrupted"]
        assert whole["playback_position"] == pytest.approx(1.0, abs=0.002)
        assert cut["interrupted"]
        assert 0.3 < cut["playback_position"] < 1.5


# What an agent of livekit-agents 1.8 sends for two segments, the first cleared in the middle.
RECORDED = [
    ("stream", "AUDIO_9c1f", {"sample_rate": "24000", "num_channels": "1"}),
    ("chunks", "AUDIO_9c1f", 100),  # 20 ms each
    ("wait", "lk.playback_started", None),
    ("call", "lk.clear_buffer", ""),
    ("end", "AUDIO_9c1f", None),
    ("stream", "AUDIO_0b77", {"sample_rate": "24000", "num_channels": "1"}),
    ("chunks", "AUDIO_0b77", 20),
    ("end", "AUDIO_0b77", None),
]


async def test_the_worker_plays_a_recorded_data_stream(rooms: type[livekit_hub.HubRoom]) -> None:
    async with serving() as live:
        theirs = rooms()
        await theirs.connect("", livekit_hub.token("agent-1", kind="agent"))
        assert theirs.me is not None
        answers: list[tuple[str, str]] = []
        for method in ("lk.playback_started", "lk.playback_finished"):
            theirs.me.register_rpc_method(
                method, lambda call, method=method: answers.append((method, call.payload)) or "ok"
            )
        token = livekit_hub.token("avatar", kind="agent")
        work = asyncio.create_task(livekit_worker.work("ws://hub", token, "agent-1", live.url))
        await until(lambda: "avatar" in rooms.hub, 15)
        await until(lambda: "lk.audio_stream" in rooms.hub["avatar"]._byte_stream_handlers, 15)
        streams: dict[str, livekit_hub.Stream] = {}
        data = b"".join(bytes(frame.data) for frame in tone(0.02))
        for what, name, value in RECORDED:
            if what == "stream":
                streams[name] = await theirs.me.stream_bytes(
                    name=name,
                    topic="lk.audio_stream",
                    destination_identities=["avatar"],
                    attributes=value,
                )
            elif what == "chunks":
                for _ in range(value):
                    await streams[name].write(data)
            elif what == "wait":
                await until(lambda name=name: name in [a for a, _ in answers], 15)
                await asyncio.sleep(0.3)
            elif what == "call":
                assert (
                    await theirs.me.perform_rpc(
                        destination_identity="avatar", method=name, payload=value
                    )
                    == "ok"
                )
            else:
                await streams[name].aclose()
        await until(lambda: len(answers) == 4, 10)
        assert [a for a, _ in answers] == ["lk.playback_started", "lk.playback_finished"] * 2
        cut, whole = (json.loads(payload) for _, payload in answers[1::2])
        assert cut["interrupted"]
        assert 0.1 < cut["playback_position"] < 1.2
        assert (whole["interrupted"], round(whole["playback_position"], 2)) == (False, 0.4)
        await theirs.disconnect()  # the agent leaves: so does the avatar
        assert await asyncio.wait_for(work, 5) == "the agent or the room is gone"
        await until(lambda: not len(live.service.sessions), 5)


async def test_an_avatar_whose_server_is_gone_leaves_and_says_so(
    rooms: type[livekit_hub.HubRoom],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    room = rooms()
    await room.connect("", livekit_hub.token("agent-1", kind="agent"))
    avatar = door.AvatarSession(url="http://127.0.0.1:9")
    session: AgentSession = AgentSession()
    await avatar.start(session, room)
    with caplog.at_level(logging.ERROR):
        await until(lambda: "127.0.0.1:9 cannot be reached" in caplog.text, 5)
    await until(lambda: door.IDENTITY not in rooms.hub, 5)
    assert session.output.audio is not None
    with pytest.raises(RuntimeError, match="disconnected while waiting"):  # so the agent learns it
        await session.output.audio.capture_frame(tone(0.02)[0])
    await avatar.aclose()
    await avatar.aclose()


async def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="LIVEKIT_URL is not set"):
        await door.AvatarSession(url="http://127.0.0.1:9").start(AgentSession(), rtc.Room())
    with pytest.raises(ValueError, match="or join=False"):
        door.AvatarSession()


def test_a_token_lets_in_who_it_names() -> None:
    text = door.make_token(livekit_hub.KEY, livekit_hub.SECRET, room="r", identity="a")
    claims = api.TokenVerifier(livekit_hub.KEY, livekit_hub.SECRET).verify(text)
    assert (claims.identity, claims.kind, claims.attributes) == ("a", "agent", {})
    assert claims.video is not None
    assert (claims.video.room, claims.video.room_join) == ("r", True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no server: give --url, or set LIVEKIT_URL"),
        (("--url", "ws://127.0.0.1:9"), "no token: give --token"),
        (("--url", "ws://127.0.0.1:9", "--room", "demo"), "no token: give --token"),
    ],
)
def test_the_worker_says_what_it_needs(
    args: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*KEYS, "LIVEKIT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(livekit_worker.app, args)
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "server.doors.livekit")
    monkeypatch.setitem(sys.modules, "livekit.agents", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'portraittalk\[livekit\]'"):
        __import__("server.doors.livekit")


async def test_the_readme_s_example_gives_the_agent_a_face(
    rooms: type[livekit_hub.HubRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    started: list[AgentSession] = []
    start = AgentSession.start

    async def noted(self: AgentSession, agent: Agent, **options: Any) -> Any:
        started.append(self)
        return await start(self, agent, record=False)  # its room's microphones need a server

    monkeypatch.setattr(AgentSession, "start", noted)
    async with serving() as live:
        room = rooms()

        async def connect() -> None:
            await room.connect("", livekit_hub.token("agent-1", kind="agent"))

        entrypoint = example("AvatarSession", live.url)["entrypoint"]
        await entrypoint(SimpleNamespace(room=room, connect=connect))
        [session] = started
        handle = session.say("hello", audio=spoken(0.3))
        await asyncio.wait_for(handle.wait_for_playout(), 20)
        assert [what for _, what, _ in rooms.wire][-1] == "lk.playback_finished"
        await session.aclose()
        await room.disconnect()  # the agent leaves, the avatar after it
        await until(lambda: not len(live.service.sessions), 5)
