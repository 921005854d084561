"""A telephone call by Twilio's media streams: the caller is the microphone and hears the avatar.

Made for `<Connect><Stream>`: `wss://HOST/api/sessions/ID/twilio`, or `wss://HOST/api/twilio` with a
`<Parameter name="session_id" value="ID"/>`. The session is made before, by POST /api/sessions, and
an assistant listens and speaks through another door while viewers see the face. The caller takes a
place as a viewer does, and is heard in the place of any viewer while the call lasts.

| from Twilio | |
| --- | --- |
| `start` | the call begins; only mu-law at 8 kHz is spoken |
| `media` | the caller's sound, 20 ms |
| `mark` | the caller has heard an utterance to its end: told as the event `heard` |
| `clear` | cuts off what is being said; Twilio itself never sends it |
| `stop` | the call is over |

To Twilio goes `media` while there is something to hear, a `mark` named after each utterance behind its
last sound, and `clear` when it is cut off. `connected`, `dtmf` and what is unknown are ignored. A
socket that cannot be served is closed with code 1008 and the reason. Twilio sends no headers: where
the server asks for tokens, one for `speak` is the `<Parameter name="token">`.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, Field, ValidationError
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.errors import AvatarError
from server.errors import ApiError, refusal
from server.live.events import Event
from server.live.outlet import Heard, Outlet, Shown
from server.live.session import Session
from server.sound.sound_format import Decoder, Encoder, SoundFormat
from server.web.http import first_of, service_of, session_of, unfit
from server.web.routes import Socket

MULAW = SoundFormat(8000, "ulaw")
START_S = 10.0  # for a call to begin
KEPT = 25  # messages that may wait for the socket, 500 ms of sound
TAIL = 10  # silent packets that are sent after sound, 200 ms; more would only add to a delay
SAMPLES_PER_MS = 48
REFUSED = 1008
MAX_REASON = 120  # bytes of a reason, by the protocol


class MediaFormat(BaseModel):
    """How the sound is written."""

    encoding: Literal["audio/x-mulaw"] = "audio/x-mulaw"
    sampleRate: Literal[8000] = 8000
    channels: Literal[1] = 1


class Start(BaseModel):
    """A call that begins."""

    streamSid: str = Field(max_length=100)
    mediaFormat: MediaFormat = MediaFormat()
    customParameters: dict[str, str] = {}


class Media(BaseModel):
    """Some sound of the call; `timestamp` in ms from its begin."""

    payload: Annotated[Base64Bytes, Field(max_length=64_000)]
    track: str = "inbound"
    timestamp: int | None = None


class Mark(BaseModel):
    """A place in the sound that was reached."""

    name: str


class Message(BaseModel):
    """What Twilio sends."""

    event: str
    start: Start | None = None
    media: Media | None = None
    mark: Mark | None = None


class Caller(Outlet):
    """The telephone: what the avatar says goes there, what the caller says into the session.

    Bound: 500 ms of messages to the telephone. Overflow: the oldest go.
    """

    def __init__(self, session: Session, stream_sid: str) -> None:
        super().__init__()
        self._session, self._stream = session, stream_sid
        self._decoder, self._encoder = Decoder(MULAW), Encoder(MULAW.rate_hz, MULAW.encoding)
        self._taken, self._given = 0, 0  # samples at 48 kHz, before and after the decoder
        self._silent = TAIL  # packets in a row
        self._marks: set[str] = set()
        self._outbox: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._changed = asyncio.Event()

    def show(self, shown: Shown) -> None:
        """A telephone shows nothing."""

    def hear(self, heard: Heard) -> None:
        """Queue 20 ms for the telephone, unless all has been silent for a while."""
        data = self._encoder.push(heard.pcm)
        self._silent = 0 if heard.pcm.any() else self._silent + 1
        if self._silent <= TAIL:
            self._put("media", media={"payload": base64.b64encode(data).decode()})

    def follow(self, event: Event) -> None:
        """Mark the end of an utterance; clear what the telephone has not played when it is cut off."""
        if event.type == "interrupted":
            self._outbox.clear()
            self._marks.clear()
            self._put("clear")
        elif event.type == "speaking_stopped" and not event.data["interrupted"]:
            self._marks.add(event.data["utterance"])
            self._put("mark", mark={"name": event.data["utterance"]})
        elif event.type == "closing":
            self.close()
            self._changed.set()

    def take(self, message: Message) -> None:
        """Do what Twilio says."""
        if message.event == "media" and message.media and message.media.track == "inbound":
            self._speak(message.media)
        elif message.event == "mark" and message.mark and message.mark.name in self._marks:
            self._marks.discard(message.mark.name)
            self._session.events.emit("heard", utterance=message.mark.name)
        elif message.event == "clear":
            self._session.interrupt()

    async def send(self, socket: WebSocket) -> None:
        """Send what is queued until the session ends."""
        while not self.closed:
            while self._outbox:
                await socket.send_json(self._outbox.popleft())
            self._changed.clear()
            await self._changed.wait()

    def _speak(self, media: Media) -> None:
        pcm = self._decoder.push(media.payload)
        begin = self._taken if media.timestamp is None else media.timestamp * SAMPLES_PER_MS
        pts = begin - (self._taken - self._given)  # the decoder holds a little back
        self._taken += len(media.payload) * 48_000 // MULAW.rate_hz
        self._given += len(pcm)
        self._session.hear(pts, pcm, time.monotonic(), by=self)

    def _put(self, event: str, **fields: Any) -> None:
        self._outbox.append({"event": event, "streamSid": self._stream, **fields})
        self._changed.set()


async def _next(socket: WebSocket) -> Message | None:
    """The next message; None when the socket is gone. Raises `ApiError` bad_request."""
    received = await socket.receive()
    if received["type"] == "websocket.disconnect":
        return None
    try:
        return Message.model_validate_json(received.get("text") or received.get("bytes") or b"")
    except ValidationError as error:
        raise unfit(error) from None


async def _started(socket: WebSocket) -> Start | None:
    """Wait for the call; None when the socket is gone. Raises `ApiError`."""
    try:
        async with asyncio.timeout(START_S):
            while (message := await _next(socket)) is not None:
                if message.event == "start" and message.start is not None:
                    return message.start
    except TimeoutError:
        raise ApiError(408, "no_start", "no call began") from None
    return None


async def _take_all(socket: WebSocket, caller: Caller) -> None:
    while (message := await _next(socket)) is not None and message.event != "stop":
        caller.take(message)


async def _talk(socket: WebSocket, session: Session, stream_sid: str) -> None:
    """Join the call to the session until either ends."""
    caller = Caller(session, stream_sid)
    if not session.attach(caller):
        raise ApiError(503, "server_full", "there is no place for this call")
    unsubscribe = session.events.subscribe(caller.follow)
    session.microphone = caller
    try:
        await first_of(_take_all(socket, caller), caller.send(socket))
    finally:
        unsubscribe()
        if session.microphone is caller:
            session.microphone = None
        session.detach(caller)


async def _serve(socket: WebSocket, session: Session | None) -> None:
    await socket.accept()
    code, reason = 1000, ""
    try:
        start = await _started(socket)
        if start is not None:
            gate = service_of(socket).gate
            if gate.closed:
                gate.check(start.customParameters.get("token"), "speak")
            name = start.customParameters.get("session_id", "")
            joined = session or service_of(socket).find_session(name)
            await _talk(socket, joined, start.streamSid)
    except WebSocketDisconnect:
        return
    except AvatarError as error:
        api = refusal(error)
        code, reason = REFUSED, f"{api.code}: {api}".encode()[:MAX_REASON].decode(errors="ignore")
    if socket.client_state.name == "CONNECTED":
        await socket.close(code, reason)


async def call(socket: WebSocket) -> None:
    """A call of an open session."""
    await _serve(socket, session_of(socket))


async def call_by_parameter(socket: WebSocket) -> None:
    """A call whose parameter `session_id` names the session."""
    await _serve(socket, None)


ROUTES: list[BaseRoute] = [
    Socket("/api/twilio", call_by_parameter, None),
    Socket("/api/sessions/{id}/twilio", call, None),
]
