"""Speech over a WebSocket: binary sound in, JSON events out, on a session that is there or is made.

`/api/sessions/{id}/speech` speaks through an open session; `/api/speech` makes one that lives as
long as the socket, and says its id in the first message: a viewer joins it with that `session_id`.
Query: `rate_hz` (24000), `encoding` (pcm16, ulaw, alaw); `listen=16000` sends the microphone back as
binary PCM16 of that rate; for a new session also `portrait_id`, `prompt`, `voice`. What is wrong
with the query, the session or the server's load is an HTTP status in place of the handshake.

A binary message is sound of the current utterance. A text message is a JSON object with a `type`:

| type | |
| --- | --- |
| `begin` | `utterance`, `rate_hz`, `encoding`: what follows is a new utterance, and the one before it is complete; sound without it begins one too |
| `end` | the utterance is complete: it is spoken to its last sample |
| `interrupt` | cut off everything; answered by the event `interrupted` |
| `words` | `words`: `[{"text", "start_ms", "end_ms"}]` of the current utterance or the one just ended, for captions |
| `state` | `state`: idle, listening or thinking |
| `prompt`, `portrait` | `prompt`; `portrait_id` |
| `ping` | answered by `pong` |

What comes back is `session` and then every event of `server.live.events`. An `error` leaves the socket
open. Two errors are about sound: after `interrupted` by somebody else what is still on its way is
dropped until `begin` or `end`; `speech_full` says in `accepted_bytes` where the utterance was cut
because 60 s wait, and its rest is dropped likewise: begin anew with it once `buffer` says there is
room. A client that reads slowly loses the oldest events (`events_missed`), never sound.
"""

from __future__ import annotations

import asyncio

from starlette.routing import BaseRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.errors import AvatarError
from server.doors.sessions import described, spoken_session_of, told_missed
from server.doors.speech_messages import (
    Begin,
    Message,
    NewPortrait,
    NewPrompt,
    NewSessionQuery,
    Plain,
    Query,
    State,
    Words,
    parse,
)
from server.errors import refusal
from server.live.events import Event, Listener
from server.live.microphone import Listening
from server.live.session import Session
from server.live.speech import Utterance, Word
from server.live.surroundings import SessionOptions
from server.sound.sound_format import SoundFormat, SpeechRefused
from server.trust.access import grant_of
from server.web.http import address_of, check, first_of, service_of
from server.web.routes import Socket

CLOSE_CODES = {"server_stopping": 1001, "failed": 1011}  # by the reason of `closing`; else 1000


class SpeechSocket:
    """One socket on one session; what it answers goes to `answers`, in order with the events."""

    def __init__(
        self, socket: WebSocket, session: Session, query: Query, answers: Listener
    ) -> None:
        self._session, self._service = session, service_of(socket)
        self._format, self._answers = SoundFormat(query.rate_hz, query.encoding), answers
        self._sound = self._format  # of the utterance
        self._utterance: Utterance | None = None
        self._ended: Utterance | None = None  # the one before
        self._accepted = 0  # bytes of the utterance

    async def take(self, message: str | bytes) -> None:
        """Do what a message says; what cannot be done changes nothing and is answered by `error`."""
        try:
            if isinstance(message, bytes):
                await self._push(message)
            else:
                await self._do(parse(message))
        except AvatarError as error:
            api = refusal(error)
            self._answers.put(Event("error", {"code": api.code, "message": str(api)}))

    def end(self) -> None:
        """Nothing more comes of the current utterance."""
        if self._utterance is not None:
            self._utterance.end()
            self._ended, self._utterance = self._utterance, None

    async def _do(self, asked: Message) -> None:
        session, service = self._session, self._service
        match asked:
            case Begin():
                self._begin(asked)
            case Words():
                said = self._utterance or self._ended or self._speaking()
                said.align(Word(w.text, w.start_ms, w.end_ms) for w in asked.words)
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
                self._answers.put(Event("pong"))

    def _begin(self, asked: Begin) -> None:
        rate = self._format.rate_hz if asked.rate_hz is None else asked.rate_hz
        sound = SoundFormat(rate, asked.encoding or self._format.encoding)
        begun = self._session.speech.begin(asked.utterance, sound)
        self.end()
        self._utterance, self._sound, self._accepted = begun, sound, 0

    async def _push(self, data: bytes) -> None:
        """Add sound, a second at a time, to what was neither cut off nor full."""
        utterance = self._speaking()
        size = self._sound.bytes_per_second
        for begin in range(0, len(data), size):
            if utterance.over or utterance.ended:
                return
            piece = data[begin : begin + size]
            try:
                utterance.push(piece)
            except SpeechRefused as error:
                utterance.end()
                told = {"utterance": utterance.id, "accepted_bytes": self._accepted}
                self._answers.put(
                    Event("error", {"code": error.code, "message": str(error), **told})
                )
                return
            self._accepted += len(piece)
            await asyncio.sleep(0)  # other sessions are served meanwhile

    def _speaking(self) -> Utterance:
        """The current utterance, or a new one."""
        if self._utterance is None:
            self._utterance = self._session.speech.begin(None, self._format)
            self._sound, self._accepted = self._format, 0
        return self._utterance


async def _tell(socket: WebSocket, session: Session, events: Listener) -> None:
    """Tell what happens until the session ends, then close the socket."""
    await socket.send_json({"type": "session", **described(session)})
    missed = 0
    async for event in events:
        if events.missed > missed:
            missed = events.missed
            await socket.send_json(told_missed(missed))
        await socket.send_json(event.message())
    reason = session.closed_for or "closed"
    await socket.close(CLOSE_CODES.get(reason, 1000), reason)


async def _send_microphone(socket: WebSocket, microphone: Listening) -> None:
    with microphone:
        async for data in microphone:
            await socket.send_bytes(data)
    await asyncio.Event().wait()  # the session is over: `_tell` says so and closes the socket


async def _take_all(socket: WebSocket, door: SpeechSocket) -> None:
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        body = message.get("bytes")
        await door.take(message["text"] if body is None else body)
        await asyncio.sleep(0)  # what waits in the socket's own queue must not keep others waiting


async def _serve(socket: WebSocket, session: Session, query: Query) -> None:
    """Accept it, then take and tell until either side ends it."""
    with session.hold(), session.events.listen() as events:
        door = SpeechSocket(socket, session, query, events)
        try:
            await socket.accept()
            parts = [_take_all(socket, door), _tell(socket, session, events)]
            if query.listen is not None:
                parts.append(_send_microphone(socket, Listening(session, query.listen)))
            await first_of(*parts)
        except WebSocketDisconnect:
            return
        finally:
            door.end()


async def speak(socket: WebSocket) -> None:
    """Speak through an open session."""
    query = check(dict(socket.query_params), Query)
    await _serve(socket, spoken_session_of(socket), query)


async def open_and_speak(socket: WebSocket) -> None:
    """Speak through a new session, which ends with the socket."""
    query = check(dict(socket.query_params), NewSessionQuery)
    options = SessionOptions(
        portrait_id=query.portrait_id,
        prompt=query.prompt,
        voice=query.voice,
        subject=grant_of(socket).subject,
    )
    session = await service_of(socket).open_session(options, address_of(socket))
    try:
        await _serve(socket, session, query)
    finally:
        await session.close("door_closed")


ROUTES: list[BaseRoute] = [
    Socket("/api/speech", open_and_speak, "speak", NewSessionQuery),
    Socket("/api/sessions/{id}/speech", speak, "speak", Query),
]
