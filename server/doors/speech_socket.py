"""Speech over a WebSocket: binary sound in, JSON events out, on a session that is there or is made.

`/api/sessions/{id}/speech` speaks through an open session; `/api/speech` makes one that lives as
long as the socket, and says its id in the first message: a viewer joins it with that `session_id`.
Query: `rate_hz` (24000), `encoding` (pcm16, ulaw, alaw); `listen=16000` sends the microphone back as
binary PCM16 of that rate; for a new session also `portrait_id`, `prompt`, `voice`.

A binary message is sound of the current utterance. A text message is a JSON object with a `type`:

| type | |
| --- | --- |
| `begin` | `utterance`, `rate_hz`, `encoding`: what follows is a new utterance; sound without it begins one too |
| `end` | the utterance is complete: it is spoken to its last sample |
| `interrupt` | cut off everything; answered by the event `interrupted` |
| `words` | `words`: `[{"text", "start_ms", "end_ms"}]` of the current utterance, for captions |
| `state` | `state`: idle, listening or thinking |
| `prompt`, `portrait` | `prompt`; `portrait_id` |
| `ping` | answered by `pong` |
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from engine.errors import AvatarError
from engine.motion.expression import MAX_PROMPT
from server.doors.sessions import described
from server.errors import refusal
from server.http import address_of, check, service_of, session_of, unfit
from server.line import Voice
from server.microphone import Listening
from server.session import Session
from server.sound_format import Encoding, SoundFormat
from server.speech import Utterance, Word
from server.surroundings import SessionOptions

MAX_WORDS = 2000


class Begin(BaseModel):
    """A new utterance."""

    type: Literal["begin"]
    utterance: str | None = None
    rate_hz: int | None = None
    encoding: Encoding | None = None


class Words(BaseModel):
    """When which word of the current utterance is spoken."""

    class Timed(BaseModel):
        """One word."""

        text: str = Field(max_length=200)
        start_ms: float = Field(ge=0)
        end_ms: float = Field(ge=0)

    type: Literal["words"]
    words: list[Timed] = Field(max_length=MAX_WORDS)


class State(BaseModel):
    """What the assistant does while it does not speak."""

    type: Literal["state"]
    state: Literal["idle", "listening", "thinking"]


class NewPrompt(BaseModel):
    """What the face expresses."""

    type: Literal["prompt"]
    prompt: str = Field(max_length=MAX_PROMPT)


class NewPortrait(BaseModel):
    """Whose face is shown."""

    type: Literal["portrait"]
    portrait_id: str = Field(max_length=100)


class Plain(BaseModel):
    """What needs no more than its name."""

    type: Literal["end", "interrupt", "ping"]


Message = Annotated[
    Begin | Words | State | NewPrompt | NewPortrait | Plain, Field(discriminator="type")
]
MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


class Query(BaseModel):
    """What the address asks for."""

    rate_hz: int = 24_000
    encoding: Encoding = "pcm16"
    listen: int | None = None
    portrait_id: str = Field("default", max_length=100)
    prompt: str = Field("", max_length=MAX_PROMPT)
    voice: Voice = "assistant"


class SpeechSocket:
    """One socket on one session."""

    def __init__(self, socket: WebSocket, session: Session, query: Query) -> None:
        self._socket, self._session = socket, session
        self._format = SoundFormat(query.rate_hz, query.encoding)
        self._utterance: Utterance | None = None

    async def take(self, message: str | bytes) -> None:
        """Do what a message says.

        Raises:
            AvatarError: it cannot be done; nothing is changed.
        """
        if isinstance(message, bytes):
            self._push(message)
        else:
            await self._do(parse(message))

    async def _do(self, asked: Message) -> None:
        session, service = self._session, service_of(self._socket)
        match asked:
            case Begin():
                self.end()
                rate = asked.rate_hz or self._format.rate_hz
                encoding = asked.encoding or self._format.encoding
                sound = SoundFormat(rate, encoding)
                self._utterance = session.speech.begin(asked.utterance, sound)
            case Words():
                self._speaking().align(Word(w.text, w.start_ms, w.end_ms) for w in asked.words)
            case State():
                session.set_mood(asked.state)
            case NewPrompt():
                await service.express(session, asked.prompt)
            case NewPortrait():
                service.show_portrait(session, asked.portrait_id)
            case Plain(type="end"):
                self.end()
            case Plain(type="interrupt"):
                session.interrupt()
                self._utterance = None
            case Plain(type="ping"):
                await self._socket.send_json({"type": "pong"})

    def end(self) -> None:
        """Nothing more comes of the current utterance."""
        if self._utterance is not None:
            self._utterance.end()
        self._utterance = None

    def _push(self, data: bytes) -> None:
        """Add sound; what was still on its way when the utterance was cut off is dropped."""
        utterance = self._speaking()
        if not utterance.over:
            utterance.push(data)

    def _speaking(self) -> Utterance:
        """The current utterance, or a new one."""
        if self._utterance is None:
            self._utterance = self._session.speech.begin(None, self._format)
        return self._utterance


def parse(text: str) -> Message:
    """Read a text message; raises `ApiError` bad_request."""
    try:
        return MESSAGE.validate_json(text)
    except ValidationError as error:
        raise unfit(error) from None


async def _tell(socket: WebSocket, session: Session, query: Query) -> None:
    """Events, and the microphone if it is asked for, until the session or the socket ends."""
    with session.events.listen() as listener:
        await socket.send_json({"type": "session", **described(session)})
        async for event in listener:
            await socket.send_json(event.message())
    await socket.close()


async def _send_microphone(socket: WebSocket, session: Session, rate_hz: int) -> None:
    with Listening(session, rate_hz) as microphone:
        async for data in microphone:
            await socket.send_bytes(data)


async def _serve(socket: WebSocket, session: Session, query: Query) -> None:
    """Take and tell until either side ends it."""
    door = SpeechSocket(socket, session, query)
    parts = [_tell(socket, session, query)]
    if query.listen is not None:
        parts.append(_send_microphone(socket, session, query.listen))
    with session.hold():
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            await _take_all(socket, door)
        finally:
            door.end()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _take_all(socket: WebSocket, door: SpeechSocket) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        body = message.get("bytes")
        try:
            await door.take(message["text"] if body is None else body)
        except AvatarError as error:
            api = refusal(error)
            await socket.send_json({"type": "error", "code": api.code, "message": str(api)})


async def speak(socket: WebSocket) -> None:
    """Speak through an open session."""
    query, session = check(dict(socket.query_params), Query), session_of(socket)
    await socket.accept()
    await _serve(socket, session, query)


async def open_and_speak(socket: WebSocket) -> None:
    """Speak through a new session, which ends with the socket."""
    query = check(dict(socket.query_params), Query)
    options = SessionOptions(portrait_id=query.portrait_id, prompt=query.prompt, voice=query.voice)
    session = await service_of(socket).open_session(options, address_of(socket))
    await socket.accept()
    try:
        await _serve(socket, session, query)
    finally:
        await session.close("door_closed")


ROUTES: list[BaseRoute] = [
    WebSocketRoute("/api/speech", open_and_speak),
    WebSocketRoute("/api/sessions/{id}/speech", speak),
]
