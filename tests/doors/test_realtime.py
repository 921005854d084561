"""OpenAI's client speaks through an avatar: with its own voice, with a model behind it, in a call."""

from __future__ import annotations

import ast
import asyncio
import base64
import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from pydantic import TypeAdapter
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from benchmarks.environment import ROOT
from client_example.headless import allow_loopback
from server.settings import ServerSettings
from tests.doors.hearing import listening
from tests.server.live import Beeper, Live, serving, until

openai = pytest.importorskip("openai", reason="pip install 'portraittalk[openai]'")

pytestmark = pytest.mark.timeout(60)
KEY = "sk-of-the-model"


def tone(seconds: float) -> str:
    t = np.arange(int(24_000 * seconds)) / 24_000
    pcm = (np.sin(2 * np.pi * 300 * t) * 9000).astype("<i2")
    return base64.b64encode(pcm.tobytes()).decode()


def silence(seconds: float) -> str:
    return base64.b64encode(bytes(2 * int(24_000 * seconds))).decode()


class Told:
    """What the client was told, each event as the client's own models have it."""

    def __init__(self, connection: Any) -> None:
        from openai.types.realtime import RealtimeServerEvent

        self.connection = connection
        self.events: list[Any] = []
        self._known: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)

    async def until(self, type: str) -> Any:
        """The next event of a type."""
        async with asyncio.timeout(10):
            while True:
                event = await self.connection.recv()
                self.events.append(event)
                if not event.type.startswith("portraittalk."):
                    self._known.validate_python(event.to_dict())
                if event.type == type:
                    return event

    def types(self) -> list[str]:
        return [e.type for e in self.events if not e.type.startswith("portraittalk.")]


@asynccontextmanager
async def talking(live: Live, **query: str) -> AsyncIterator[Told]:
    url = live.url.replace("http", "ws") + "/v1"
    async with (
        openai.AsyncOpenAI(
            api_key="k", base_url=f"{live.url}/v1", websocket_base_url=url
        ) as client,
        client.realtime.connect(model="m", extra_query=query) as connection,
    ):
        yield Told(connection)


class Ear:
    """A viewer: how loud each 20 ms are that it hears, and its events."""

    def __init__(self) -> None:
        allow_loopback()
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.levels: list[float] = []
        self.frames = 0
        self.events: list[dict[str, Any]] = []
        self.channel = self.pc.createDataChannel("oai-events")
        self.channel.on("message", lambda text: self.events.append(json.loads(text)))
        self._tasks: list[asyncio.Task[None]] = []
        self.pc.on("track", lambda t: self._tasks.append(asyncio.create_task(self._follow(t))))

    async def _follow(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if track.kind == "audio":
                self.levels.append(float(np.abs(frame.to_ndarray()).max()))
            else:
                self.frames += 1

    @property
    def hears(self) -> bool:
        return bool(self.levels) and max(self.levels[-5:]) > 1000

    async def close(self) -> None:
        await self.pc.close()
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def viewing(
    answer: Callable[[str], Awaitable[str]],
    microphone: MediaStreamTrack | None = None,
    *,
    video: bool = True,
) -> AsyncIterator[Ear]:
    ear = Ear()
    try:
        ear.pc.addTransceiver(microphone or "audio", direction="sendrecv")
        if video:
            ear.pc.addTransceiver("video", direction="recvonly")
        await ear.pc.setLocalDescription(await ear.pc.createOffer())
        sdp = await answer(ear.pc.localDescription.sdp)
        await ear.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        await until(lambda: len(ear.levels) > 5, 10)
        yield ear
    finally:
        await ear.close()


def joining(live: Live, session_id: str) -> Callable[[str], Awaitable[str]]:
    async def answer(sdp: str) -> str:
        body = {"sdp": sdp, "type": "offer", "session_id": session_id}
        done = await live.http.post("/api/offer", json=body)
        return str(done.raise_for_status().json()["sdp"])

    return answer


@pytest.mark.timing
async def test_what_a_client_appends_is_said_and_can_be_cut_off() -> None:
    async with serving() as live, talking(live) as told:
        say = told.connection
        created = await told.until("session.created")
        session = live.service.find_session(created.session.avatar["session_id"])
        async with viewing(joining(live, session.id)) as ear:
            with listening(session) as left:
                await say.input_audio_buffer.append(audio=tone(5))
                await say.input_audio_buffer.commit()
                await say.response.create()
                response = (await told.until("response.created")).response.id
                item = (await told.until("input_audio_buffer.committed")).item_id
                started = await told.until("output_audio_buffer.started")
                assert (started.response_id, started.item_id) == (response, item)
                await until(lambda: ear.hears, 5)
                await asyncio.sleep(0.5)
                await say.response.cancel()
                cleared = await told.until("output_audio_buffer.cleared")
            assert 400 < cleared.audio_end_ms < 4000
            assert abs(cleared.audio_end_ms - len(left.speech()) / 48) <= 40
            done = (await told.until("response.done")).response
            assert (done.id, done.status) == (response, "cancelled")
            await until(lambda: not ear.hears, 1)
            await say.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=5000)
            cut = await told.until("conversation.item.truncated")
            assert abs(cut.audio_end_ms - cleared.audio_end_ms) <= 1  # what was really played

            await say.input_audio_buffer.append(audio=tone(0.3))
            await say.response.create()  # completes what was only appended
            done = (await told.until("response.done")).response
            assert done.status == "completed"
            assert told.types()[-2] == "output_audio_buffer.stopped"


async def test_a_pause_ends_an_utterance_and_what_cannot_be_is_said() -> None:
    async with serving() as live, talking(live) as told:
        say = told.connection
        vad = {"type": "server_vad", "silence_duration_ms": 300}
        avatar = {"prompt": "smile", "state": "thinking"}
        await say.session.update(
            session={
                "type": "realtime",
                "audio": {"input": {"turn_detection": vad}},
                "avatar": avatar,
            }
        )
        updated = await told.until("session.updated")
        assert updated.session.audio.input.turn_detection.type == "server_vad"
        assert updated.session.avatar["state"] == "thinking"
        assert "portraittalk.prompt" in [e.type for e in told.events]
        for sound in (silence(0.5), tone(0.6), silence(0.5)):
            await say.input_audio_buffer.append(audio=sound)
        begun = await told.until("input_audio_buffer.speech_started")
        ended = await told.until("input_audio_buffer.speech_stopped")
        assert begun.audio_start_ms == pytest.approx(500, abs=40)
        assert ended.audio_end_ms == pytest.approx(1400, abs=60)
        assert (await told.until("input_audio_buffer.committed")).item_id == begun.item_id

        async def refused(code: str) -> None:
            assert (await told.until("error")).error.code == code

        await say.send({"type": "input_audio_buffer.append", "audio": "*", "event_id": "mine"})
        assert (await told.until("error")).error.event_id == "mine"
        await say.input_audio_buffer.clear()
        await say.input_audio_buffer.commit()
        await refused("input_audio_buffer_commit_empty")
        await say.conversation.item.truncate(item_id="none", content_index=0, audio_end_ms=0)
        await refused("item_not_found")
        text = {"type": "input_text", "text": "hello"}
        await say.conversation.item.create(
            item={"type": "message", "role": "user", "content": [text]}
        )
        await refused("no_model")
        await say.session.update(
            session={"type": "realtime", "audio": {"input": {"format": {"type": "audio/opus"}}}}
        )
        await refused("bad_request")


async def test_the_readmes_example_is_heard() -> None:
    blocks = (ROOT / "server/doors/README.md").read_text().split("```python\n")
    [code] = [block.partition("```")[0] for block in blocks if "AsyncOpenAI(" in block]
    heard = []

    async def seen(session_id: str, live: Live) -> None:
        async with viewing(joining(live, session_id)) as ear:
            await until(lambda: ear.hears, 5)
            heard.append(session_id)

    async with serving() as live:
        code = code.replace("localhost:8080", live.url.partition("//")[2])
        code += "    await seen(session_id, live)\n"
        names = {"AsyncOpenAI": openai.AsyncOpenAI, "pcm16_24khz_base64": tone(3)}
        names |= {"seen": seen, "live": live}
        await eval(
            compile(code, "server/doors/README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names
        )
        await names["client"].close()
    assert heard


class Model:
    """A realtime model, the third party: it answers the first sound it hears with a long speech."""

    def __init__(self) -> None:
        self.said: list[Any] = []  # by its client
        self.headers: Any = None
        self.path = ""
        self.socket: ServerConnection | None = None

    async def talk(self, socket: ServerConnection) -> None:
        from openai.types import realtime as api

        assert socket.request is not None
        self.socket, self.headers, self.path = socket, socket.request.headers, socket.request.path
        known: TypeAdapter[Any] = TypeAdapter(api.RealtimeClientEvent)
        session = api.RealtimeSessionCreateRequest(type="realtime", model="gpt-realtime")
        await self.tell(
            api.SessionCreatedEvent(event_id="e", type="session.created", session=session)
        )
        async for text in socket:
            event = known.validate_json(text)
            self.said.append(event)
            if event.type == "input_audio_buffer.append" and len(self.of(event.type)) == 1:
                await self.answer("resp_1", "item_1")

    async def answer(self, response: str, item: str, seconds: int = 4) -> None:
        from openai.types import realtime as api

        about = api.RealtimeResponse(id=response, status="in_progress")
        await self.tell(
            api.ResponseCreatedEvent(event_id="e", type="response.created", response=about)
        )
        for _ in range(seconds):
            await self.speak(response, item)

    async def speak(self, response: str, item: str) -> None:
        from openai.types.realtime import ResponseAudioDeltaEvent as Delta

        where = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        await self.tell(
            Delta(event_id="e", type="response.output_audio.delta", delta=tone(1.0), **where)
        )

    async def hear_the_user(self) -> None:
        from openai.types.realtime import InputAudioBufferSpeechStartedEvent as Started

        type = "input_audio_buffer.speech_started"
        await self.tell(Started(event_id="e", type=type, audio_start_ms=0, item_id="item_user"))

    async def tell(self, event: Any) -> None:
        assert self.socket is not None
        await self.socket.send(event.model_dump_json(exclude_none=True))

    def of(self, type: str) -> list[Any]:
        return [event for event in self.said if event.type == type]


@asynccontextmanager
async def modelled() -> AsyncIterator[tuple[Model, ServerSettings]]:
    model = Model()
    async with serve(model.talk, "127.0.0.1", 0) as server:
        [socket] = server.sockets
        address = f"ws://127.0.0.1:{socket.getsockname()[1]}/v1/realtime"
        yield model, ServerSettings(port=0, realtime_upstream=address, realtime_key=KEY)


@pytest.mark.timing
async def test_the_avatar_stands_between_a_model_and_its_user(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with modelled() as (model, settings), serving(settings=settings) as live:
        async with talking(live) as told:
            created = await told.until("session.created")
            session = live.service.find_session(created.session.avatar["session_id"])
            assert model.path == "/v1/realtime?model=m"
            assert model.headers["Authorization"] == f"Bearer {KEY}"
            async with viewing(joining(live, session.id)) as ear:
                await told.connection.input_audio_buffer.append(audio=tone(0.1))
                delta = await told.until("response.output_audio.delta")
                assert delta.delta == tone(1.0)
                started = await told.until("output_audio_buffer.started")
                assert (started.response_id, started.item_id) == ("resp_1", "item_1")
                await until(lambda: ear.hears, 5)
                await asyncio.sleep(0.4)

                await model.hear_the_user()
                cleared = await told.until("output_audio_buffer.cleared")
                assert told.types()[-2] == "input_audio_buffer.speech_started"
                assert 300 < cleared.audio_end_ms < 3000
                await until(lambda: not ear.hears, 1)
                await until(lambda: bool(model.of("conversation.item.truncate")), 2)
                [cut] = model.of("conversation.item.truncate")
                assert cut.item_id == "item_1"
                assert cut.audio_end_ms == int(cleared.audio_end_ms)
                assert not model.of("response.cancel")  # the model does that by itself
                assert session.mood == "listening"

                await model.speak("resp_1", "item_9")  # on its way when it was cut off
                await told.until("response.output_audio.delta")
                assert not session.speech.busy
                await model.answer("resp_2", "item_2")
                await told.until("output_audio_buffer.started")
                session.interrupt()  # by another door: the model is to stop
                await until(lambda: len(model.of("conversation.item.truncate")) == 2, 2)
                assert len(model.of("response.cancel")) == 1

                await model.answer("resp_3", "item_3", seconds=90)  # more than a session holds
                await told.until("output_audio_buffer.started")
                assert 15 < session.speech.buffered_s < 25
                where = {"item_id": "item_3", "content_index": 0}
                await told.connection.conversation.item.truncate(**where, audio_end_ms=50_000)
                cleared = await told.until("output_audio_buffer.cleared")
                await until(lambda: len(model.of("conversation.item.truncate")) == 3, 2)
                cut = model.of("conversation.item.truncate")[-1]
                assert cut.audio_end_ms == int(cleared.audio_end_ms)  # what was really heard
                assert len(model.of("response.cancel")) == 2

            assert model.socket is not None
            await model.socket.close()
            assert (await told.until("error")).error.code == "upstream_closed"
            with pytest.raises(ConnectionClosed):
                await told.until("never")
    ours = [r.getMessage() for r in caplog.records if r.name != "websockets.server"]
    assert KEY not in " ".join([repr(settings), *ours])


async def test_in_a_call_the_microphone_goes_to_the_model() -> None:
    async with modelled() as (model, settings), serving(settings=settings) as live:
        calls: list[str] = []

        async def answer(sdp: str) -> str:
            headers = {"Content-Type": "application/sdp"}
            made = await live.http.post("/v1/realtime/calls?model=m", content=sdp, headers=headers)
            calls.append(made.raise_for_status().headers["location"].rpartition("/")[2])
            return str(made.text)

        async with viewing(answer, Beeper()) as ear, talking(live, call_id=calls[0]) as told:
            assert (await told.until("session.created")).session.avatar["portrait_id"] == "default"
            await until(lambda: ear.hears, 5)
            await until(lambda: len(model.of("input_audio_buffer.append")) > 50, 5)
            types = [event["type"] for event in ear.events]
            assert "output_audio_buffer.started" in types
            assert "response.output_audio.delta" not in types  # it comes with the face
            live.service.find_session(calls[0][4:]).events.emit("text", text="hello")
            await until(lambda: bool(model.of("response.create")), 2)
            assert model.of("conversation.item.create")[0].item.content[0].text == "hello"
            await live.http.post(f"/v1/realtime/calls/{calls[0]}/hangup")
            await until(lambda: not len(live.service.sessions), 3)
    heard = b"".join(base64.b64decode(e.audio) for e in model.of("input_audio_buffer.append"))
    pcm = np.frombuffer(heard, "<i2").astype(int)
    assert np.abs(pcm[:24_000]).max() > 8000  # the beep
    assert np.mean(np.abs(pcm) > 1000) < 0.2  # and not the model's own voice


async def test_a_model_out_of_reach_is_said() -> None:
    settings = ServerSettings(port=0, realtime_upstream="ws://127.0.0.1:1/v1/realtime")
    async with serving(settings=settings) as live:
        with pytest.raises(InvalidStatus) as refused:
            async with talking(live):
                raise AssertionError
        assert refused.value.response.status_code == 502
        assert b"upstream_unreachable" in (refused.value.response.body or b"")
        assert not len(live.service.sessions)


async def test_a_call_has_a_face_where_its_offer_has_a_video() -> None:
    async with (
        serving() as live,
        openai.AsyncOpenAI(api_key="k", base_url=f"{live.url}/v1") as client,
    ):
        calls: list[str] = []

        async def answer(sdp: str) -> str:
            session = {"type": "realtime", "model": "m", "avatar": {"prompt": "smile"}}
            made = await client.realtime.calls.create(sdp=sdp, session=session)
            assert made.response.status_code == 201
            calls.append(made.response.headers["location"].rpartition("/")[2])
            return made.read().decode()

        async with viewing(answer, Beeper()) as ear:
            await until(lambda: bool(ear.frames) and bool(ear.events), 5)
            await until(lambda: ear.hears, 5)  # its microphone is the assistant's voice
            assert ear.events[0]["type"] == "session.created"
            async with talking(live, call_id=calls[0]) as told:
                await told.until("session.created")
                ear.channel.send(json.dumps({"type": "input_audio_buffer.commit"}))
                await told.until("error")
                await until(lambda: ear.events[-1]["type"] == "error", 2)
            session = weakref.ref(live.service.find_session(calls[0].removeprefix("rtc_")))
            await client.realtime.calls.hangup(calls[0])
            await until(lambda: ear.pc.connectionState == "closed", 5)
            assert not len(live.service.sessions)

        async def plain(sdp: str) -> str:
            return (await client.realtime.calls.create(sdp=sdp)).read().decode()

        async with viewing(plain, video=False) as ear:
            assert "m=video" not in ear.pc.remoteDescription.sdp
            gc.collect()
            assert session() is None  # nothing is kept of a call that is over
        with pytest.raises(openai.NotFoundError):
            await client.realtime.calls.hangup(calls[0])
