"""Telephone calls as Twilio's media streams bring them, over the `websockets` client."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import av
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.doors.hearing import (
    Sound,
    at_48k,
    babble,
    cut_at_ms,
    door,
    loud,
    new_session,
    telephone,
    wholeness,
)
from tests.server.live import Live, until

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.timing,
    pytest.mark.asyncio(loop_scope="module"),
]


FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


def from_mulaw(data: bytes) -> Sound:
    coder = av.CodecContext.create("pcm_mulaw", "r")
    coder.sample_rate, coder.layout = 8000, "mono"
    return np.concatenate([f.to_ndarray().reshape(-1) for f in coder.decode(av.Packet(data))])


class Twilio:
    """Twilio's side of a call, which plays what it is sent at once and echoes marks then."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[tuple[float, Sound]] = []
        self.marks: list[str] = []
        self.clears: list[float] = []
        self._number = 0

    async def send(self, event: str, **fields: Any) -> None:
        self._number += 1
        body = {"event": event, "sequenceNumber": str(self._number), "streamSid": "MZ1", **fields}
        await self.socket.send(json.dumps(body))

    async def start(self, **parameters: str) -> None:
        await self.socket.send(
            json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        )
        start = {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": "CA1",
            "tracks": ["inbound"],
            "mediaFormat": FORMAT,
            "customParameters": parameters,
        }
        await self.send("start", start=start)

    async def speak(self, pcm: Sound) -> None:
        """Say 8 kHz sound in real time."""
        data, began = telephone(pcm), time.monotonic()
        for chunk in range(len(data) // 160):
            await asyncio.sleep(max(0.0, began + chunk * 0.02 - time.monotonic()))
            payload = base64.b64encode(data[chunk * 160 : chunk * 160 + 160]).decode()
            media = {"track": "inbound", "chunk": str(chunk + 1), "timestamp": str(chunk * 20)}
            await self.send("media", media={**media, "payload": payload})

    async def follow(self) -> None:
        async for text in self.socket:
            message = json.loads(text)
            assert message["streamSid"] == "MZ1"
            if message["event"] == "media":
                data = base64.b64decode(message["media"]["payload"])
                self.heard.append((time.monotonic(), from_mulaw(data)))
            elif message["event"] == "mark":
                self.marks.append(message["mark"]["name"])
                await self.send("mark", mark=message["mark"])
            else:
                assert message["event"] == "clear"
                self.clears.append(time.monotonic())

    @property
    def sound(self) -> Sound:
        return np.concatenate([np.zeros(0, np.int16), *(pcm for _, pcm in self.heard)])


@asynccontextmanager
async def calling(live: Live, path: str, **parameters: str) -> AsyncIterator[Twilio]:
    async with connect(live.url.replace("http", "ws", 1) + path, proxy=None) as socket:
        twilio = Twilio(socket)
        await twilio.start(**parameters)
        task = asyncio.ensure_future(twilio.follow())
        try:
            yield twilio
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_caller_is_heard_by_the_assistant_and_hears_the_avatar(live: Live) -> None:
    asked, answered = babble(0.6, 8000, seed=1), babble(0.8, 24_000, seed=2)
    session = await new_session(live)
    path = f"/api/sessions/{session.id}/speech?listen=16000"
    async with (
        door(live, path) as assistant,
        calling(live, "/api/twilio", session_id=session.id) as twilio,
    ):
        await assistant.event("ready")
        await twilio.send("dtmf", dtmf={"track": "inbound_track", "digit": "1"})
        await twilio.speak(asked)
        await asyncio.sleep(0.1)
        before = len(twilio.heard)
        await assistant.say("begin", utterance="answer")
        await assistant.socket.send(answered.tobytes())
        await assistant.say("end")
        await assistant.event("heard", utterance="answer")
        kinds = [e["type"] for e in assistant.events]
        assert kinds.index("heard") > kinds.index("speaking_stopped")
        await asyncio.sleep(0.5)
        silent = len(twilio.heard)
        await asyncio.sleep(0.2)
        assert len(twilio.heard) == silent  # no silence piles up at the telephone
        microphone = np.frombuffer(b"".join(assistant.microphone), np.int16)
        await twilio.send("stop", stop={"accountSid": "AC1", "callSid": "CA1"})
        await asyncio.wait_for(twilio.socket.wait_closed(), 3)
        assert session.microphone is None
        await until(lambda: not session.live, 3)
        assert session.closed_for is None
    assert before == 0
    assert twilio.marks == ["answer"]
    for said, heard in (
        (at_48k(asked, 8000), at_48k(microphone, 16_000)),
        (at_48k(answered, 24_000), at_48k(twilio.sound, 8000)),
    ):
        there, off_ms = wholeness(said, heard)
        assert there > 0.8
        assert abs(off_ms) <= 50


async def test_who_speaks_over_the_avatar_hears_it_stop(live: Live) -> None:
    said = babble(3, 24_000, seed=3)
    session = await new_session(live)
    async with (
        door(live, f"/api/sessions/{session.id}/speech") as assistant,
        calling(live, f"/api/sessions/{session.id}/twilio") as twilio,
    ):
        await assistant.say("begin", utterance="long")
        await assistant.socket.send(said.tobytes())
        await assistant.say("end")
        await assistant.event("speaking_started")
        await asyncio.sleep(0.5)
        asked = time.monotonic()
        await assistant.say("interrupt")
        told = await assistant.event("interrupted")
        await asyncio.sleep(0.4)
        kept = [pcm for at, pcm in twilio.heard]
        assert len(twilio.clears) == 1
        assert twilio.clears[0] - asked < 0.15
        assert max(at for at, pcm in twilio.heard if loud(pcm)) - asked <= 0.15
        assert twilio.marks == []
        last = max(i for i, pcm in enumerate(kept) if loud(pcm))
        heard = at_48k(np.concatenate(kept[:last]), 8000)  # its last packet fades
        assert abs(told["position_ms"] - cut_at_ms(at_48k(said, 24_000), heard)) <= 40
        await twilio.send("clear")
        await assistant.event("interrupted", nth=2)
        await live.http.delete(f"/api/sessions/{session.id}")
        await asyncio.wait_for(twilio.socket.wait_closed(), 3)
        assert twilio.socket.close_code == 1000


BAD_CALLS: dict[str, tuple[str, str]] = {
    "no json": ("hello", "bad_request"),
    "no event": ("{}", "bad_request"),
    "another codec": (
        json.dumps(
            {"event": "start", "start": {"streamSid": "M", "mediaFormat": {"encoding": "opus"}}}
        ),
        "bad_request",
    ),
    "no session": ('{"event": "start", "start": {"streamSid": "M"}}', "unknown_session"),
}


async def test_a_call_that_cannot_be_served_is_closed_with_a_reason(live: Live) -> None:
    url = live.url.replace("http", "ws", 1)
    for name, (message, code) in BAD_CALLS.items():
        async with connect(url + "/api/twilio", proxy=None) as socket:
            await socket.send(message)
            await asyncio.wait_for(socket.wait_closed(), 3)
            assert socket.close_code == 1008, name
            assert str(socket.close_reason).startswith(code), name
    session = await new_session(live)
    async with calling(live, f"/api/sessions/{session.id}/twilio") as twilio:
        await until(lambda: session.live, 3)
        await twilio.send("media", media={"payload": "abc"})
        await asyncio.wait_for(twilio.socket.wait_closed(), 3)
        assert twilio.socket.close_code == 1008
    await until(lambda: not session.live, 3)
    assert session.closed_for is None
