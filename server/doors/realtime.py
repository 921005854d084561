"""The shape of OpenAI's Realtime API, so that its clients speak through an avatar.

`/v1/realtime` is its WebSocket, `POST /v1/realtime/calls` its WebRTC: an offer in, an answer out, the
call's id in `Location`; the answer has a face where the offer has a video, and the data channel
`oai-events` carries the events. `/v1/realtime?call_id=` joins a call.

Without `--realtime-upstream` the sound that a client appends (a call's microphone) is the assistant's
voice: the avatar says it. With it, a model is behind the avatar (`server.conversation.upstream`). The query of
a WebSocket, or of a call, may have `portrait_id` and `prompt`; that of a WebSocket also `session_id`,
to speak through a session that is there. A viewer joins by `session.avatar.session_id`, which
`session.created` tells, with POST `/api/offer`.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from email.message import Message
from email.parser import BytesParser
from typing import Any

from aiortc import RTCDataChannel
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.motion.expression import MAX_PROMPT
from server.conversation.own_voice import OwnVoice
from server.conversation.realtime import Conversation, Json
from server.conversation.upstream import Upstream, reach
from server.errors import ApiError
from server.live.line import Voice
from server.live.session import Session
from server.live.surroundings import SessionOptions
from server.service import AvatarService
from server.trust.access import KEY_PROTOCOL, grant_of
from server.web.http import MAX_JSON_BYTES, address_of, check, read_body, service_of
from server.web.routes import Operation, Socket, Terms
from server.webrtc.control import DataChannel
from server.webrtc.viewer import Viewer

CHANNEL = "oai-events"
MAX_EVENT = 256 * 1024  # of a data channel
MAX_UNREAD = 2048  # events that a client may leave unread; then it is hung up
SUBPROTOCOL = "realtime"
_calls: dict[str, Conversation] = {}  # by session, as long as it lives


class Query(BaseModel):
    """What the address asks for."""

    model: str = Field(default="", max_length=200)
    call_id: str | None = Field(default=None, max_length=100)
    session_id: str | None = Field(default=None, max_length=100)
    portrait_id: str = Field(default="default", max_length=100)
    prompt: str = Field(default="", max_length=MAX_PROMPT)


class Opening:
    """What a conversation needs before it has a session: the model behind it, where there is one."""

    def __init__(self, service: AvatarService, model: str) -> None:
        self._service, self._model = service, model
        self._socket: Any = None

    async def reach(self, connection: HTTPConnection) -> None:
        """Connect to the model; raises `ApiError` upstream_unreachable."""
        settings = self._service.settings
        if settings.realtime_upstream:
            theirs = (
                "" if self._service.gate.closed else _key_of(connection)
            )  # else it is our token
            key = settings.realtime_key or theirs
            self._socket = await reach(settings.realtime_upstream, key, self._model)

    def begin(self, session: Session) -> Conversation:
        """Begin the conversation of `session`."""
        if self._socket is None:
            return OwnVoice(session, self._service, self._model or "portraittalk")
        socket, self._socket = self._socket, None
        return Upstream(session, self._service, socket)

    async def drop(self) -> None:
        """Hang up if nothing began."""
        if self._socket is not None:
            await self._socket.close()


def _key_of(connection: HTTPConnection) -> str:
    """The key that a client gives for the model."""
    offered = connection.scope.get("subprotocols", [])
    key = next((p.removeprefix(KEY_PROTOCOL) for p in offered if p.startswith(KEY_PROTOCOL)), "")
    return connection.headers.get("authorization", "").removeprefix("Bearer ").strip() or key


async def talk(socket: WebSocket) -> None:
    """A client's WebSocket: on a call, on an open session, or on one of its own."""
    query, service = check(dict(socket.query_params), Query), service_of(socket)
    if query.call_id is not None:
        await _serve(socket, _call(query.call_id))
        return
    opening = Opening(service, query.model)
    await opening.reach(socket)
    try:
        if query.session_id is not None:
            session = service.find_session(query.session_id)
        else:
            options = SessionOptions(
                portrait_id=query.portrait_id,
                prompt=query.prompt,
                voice="assistant",
                subject=grant_of(socket).subject,
            )
            session = await service.open_session(options, address_of(socket))
        conversation = opening.begin(session)
    finally:
        await opening.drop()
    try:
        await _serve(socket, conversation)
    finally:
        await conversation.close()
        if query.session_id is None:
            await session.close("door_closed")


async def _serve(socket: WebSocket, conversation: Conversation) -> None:
    """Take and tell until either side, or the session, ends it."""
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    queue: asyncio.Queue[Json | None] = asyncio.Queue()
    detach = conversation.attach(queue.put_nowait)
    ended = asyncio.ensure_future(conversation.ended())
    ended.add_done_callback(lambda task: queue.put_nowait(None))
    parts = (_take_all(socket, conversation), _tell_all(socket, queue))
    tasks = [asyncio.ensure_future(each) for each in parts]
    try:
        with conversation.session.hold():
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        detach()
        for task in (*tasks, ended):
            task.cancel()
        await asyncio.gather(*tasks, ended, return_exceptions=True)
    with suppress(RuntimeError, WebSocketDisconnect):  # the client was first
        await socket.close(1000 if conversation.session.closed_for else 1011)


async def _take_all(socket: WebSocket, conversation: Conversation) -> None:
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        text = message.get("text") or ""
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            event = None
        await conversation.take(event if isinstance(event, dict) else {})


async def _tell_all(socket: WebSocket, queue: asyncio.Queue[Json | None]) -> None:
    """Tell the client, until there is no more (None), or it does not read what it is told."""
    while queue.qsize() <= MAX_UNREAD and (event := await queue.get()) is not None:
        await socket.send_text(json.dumps(event))


async def call(request: Request) -> Response:
    """Answer a call's offer."""
    query, service = check(dict(request.query_params), Query), service_of(request)
    sdp, wanted = _read_call(request, await read_body(request, MAX_JSON_BYTES))
    opening = Opening(service, query.model or str(wanted.pop("model", "")))
    await opening.reach(request)
    voice: Voice = "assistant" if service.settings.realtime_upstream else "both"
    options = SessionOptions(
        portrait_id=query.portrait_id,
        prompt=query.prompt,
        voice=voice,
        subject=grant_of(request).subject,
    )

    def make(session: Session) -> Viewer:
        conversation = _calls[session.id] = opening.begin(session)

        async def forget() -> None:
            _calls.pop(session.id, None)

        session.on_close.append(forget)
        return Viewer(session, role="call", channels=_Channel(conversation).take)

    try:
        address = address_of(request)
        session, answer = await service.offer(sdp, options, address, make, role="call")
    finally:
        await opening.drop()
    if wanted:
        await _calls[session.id].take({"type": "session.update", "session": wanted})
    headers = {"Location": f"/v1/realtime/calls/rtc_{session.id}"}
    return Response(answer, 201, headers, media_type="application/sdp")


class _Channel:
    """A call's events over its data channel; the model's voice goes with the face, not here."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._channel = DataChannel(self._on_message, limit=MAX_EVENT)
        self._taking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, channel: RTCDataChannel) -> bool:
        """Talk over `channel`, if it is the one of the events."""
        if channel.label == CHANNEL:
            self._channel.attach(channel)
            self._conversation.attach(self._send)
        return channel.label == CHANNEL

    def _send(self, event: Json) -> None:
        if not str(event.get("type")).endswith("audio.delta"):
            self._channel.send(event)

    def _on_message(self, event: dict[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(self._do(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, event: dict[str, Any]) -> None:
        async with self._taking:  # in their order
            await self._conversation.take(event)


def _read_call(request: Request, body: bytes) -> tuple[str, Json]:
    """The offer and the wanted session of a call: SDP alone, or a form of both.

    Raises:
        ApiError: unsupported_type, bad_request.
    """
    kind = request.headers.get("Content-Type", "")
    if kind.startswith("application/sdp"):
        return body.decode(errors="replace"), {}
    if not kind.startswith("multipart/form-data"):
        raise ApiError(415, "unsupported_type", "send application/sdp, or a form with sdp, session")
    form = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = {str(_name(part)): part.get_payload(decode=True) for part in form.walk()}
    sdp, wanted = parts.get("sdp"), parts.get("session") or b"{}"
    try:
        session = json.loads(wanted) if isinstance(wanted, bytes) else None
    except (ValueError, RecursionError):
        session = None
    if not isinstance(sdp, bytes) or not isinstance(session, dict):
        raise ApiError(422, "bad_request", "the form must have sdp; session, if any, is JSON")
    return sdp.decode(errors="replace"), session


def _name(part: Message) -> object:
    return part.get_param("name", header="Content-Disposition")


def _call(call_id: str) -> Conversation:
    conversation = _calls.get(call_id.removeprefix("rtc_"))
    if conversation is None:
        raise ApiError(404, "unknown_call", "this call is over")
    return conversation


async def hang_up(request: Request) -> Response:
    """End a call."""
    conversation = _call(request.path_params["id"])
    await conversation.session.close("client")
    return Response()


ROUTES: list[BaseRoute] = [
    Socket("/v1/realtime", talk, "speak", Query),
    Operation(
        "/v1/realtime/calls",
        call,
        "speak",
        POST=Terms({201: "application/sdp"}, "application/sdp", Query),
    ),
    Operation("/v1/realtime/calls/{id}/hangup", hang_up, "speak", POST=Terms({200: None})),
]
