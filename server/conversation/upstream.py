"""A conversation with a realtime model behind the avatar, which stands between it and the client.

What the client says goes to the model, and so does the microphone of a viewer who has one. What the
model says is passed on, and its voice drives the face. When its user begins to speak, the avatar is
silent at once, and the model learns how much of what it said was really heard.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from engine.errors import AvatarError
from server.conversation.realtime import RATE_HZ, Conversation, Json, Sink, part, sound_in, sound_of
from server.errors import ApiError
from server.live.events import Event
from server.live.microphone import Listening
from server.live.session import Session
from server.live.speech import Utterance
from server.service import AvatarService
from server.sound.sound_format import SoundFormat

AHEAD_S = 20.0  # of speech that the session holds; more of it waits here
MOST_AHEAD = 32 * 1024 * 1024  # bytes that wait here: eleven minutes at 24 kHz
MAX_EVENT = 16 * 1024 * 1024
OPEN_S, CLOSE_S = 10.0, 1.0
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # below it the library writes headers, and so the key


async def reach(address: str, key: str, model: str) -> ClientConnection:
    """Connect to the model; raises `ApiError` upstream_unreachable."""
    parts = urlsplit(address)
    if model and "model" not in parse_qs(parts.query):
        query = "&".join(filter(None, (parts.query, urlencode({"model": model}))))
        address = parts._replace(query=query).geturl()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return await connect(
            address,
            additional_headers=headers,
            max_size=MAX_EVENT,
            open_timeout=OPEN_S,
            close_timeout=CLOSE_S,
            logger=log,
        )
    except (OSError, WebSocketException) as error:
        said = f"the realtime model behind this server cannot be reached: {error}"
        raise ApiError(502, "upstream_unreachable", said) from None


class _Item:
    """A piece of the model's speech until it is over."""

    def __init__(self, content_index: int) -> None:
        self.content_index = content_index
        self.utterance: Utterance | None = None  # once some of it was handed to the session


class Upstream(Conversation):
    """A conversation whose other side is a realtime model. On the event loop.

    Bound: 11 minutes of speech that the model is ahead. Overflow: what comes then is not spoken, and the
    client is told.
    """

    def __init__(self, session: Session, service: AvatarService, socket: ClientConnection) -> None:
        super().__init__(session, service)
        self._over = asyncio.Event()  # the model has hung up
        self._socket = socket
        self._created: Json | None = None
        self._sound = SoundFormat(RATE_HZ)
        self._interrupts = True  # whether the user's voice cuts off the model's
        self._client_speaks = False  # the client appends; then no microphone of ours is sent
        self._answering: str | None = None  # the response that the model is making
        self._items: dict[str, _Item] = {}  # being said, or waiting to be
        self._cut: deque[str] = deque(maxlen=64)  # items that are said no more
        self._waiting: deque[tuple[str, bytes | None]] = deque()  # None: the item is complete
        self._ahead = 0  # bytes in `_waiting`
        self._own_cancel = True  # tell the model to stop what was cut off
        self._tasks = {asyncio.ensure_future(each) for each in (self._hear_all(), self._listen())}
        session.on_close.append(self.close)

    def attach(self, sink: Sink) -> Callable[[], None]:
        """Tell `sink` from now on; one that comes late is told of the model's session first."""
        if self._created is not None:
            sink(self._created)
        return super().attach(sink)

    async def ended(self) -> None:
        """Wait until the model has hung up, or the session ends, which hangs up on it."""
        await self._over.wait()

    async def close(self) -> None:
        """Hang up. May be called again."""
        await super().close()
        if self.close in self.session.on_close:
            self.session.on_close.remove(self.close)
        for task in self._tasks:
            task.cancel()
        self._over.set()
        await self._socket.close()

    async def do(self, event: Json) -> None:
        """Do what a client says; raises `AvatarError`."""
        match event["type"]:
            case "output_audio_buffer.clear":  # the buffer is ours: the model has none
                self.session.interrupt()
                return
            case "response.cancel":
                self._silence(cancel=False)
            case "conversation.item.truncate" if event.get("item_id") in self._items:
                self._silence(cancel=True)  # which truncates it, where it was really cut off
                return
            case "conversation.item.truncate" if event.get("item_id") in self._cut:
                return  # the model was told before
            case "input_audio_buffer.append":
                self._client_speaks = True
            case "session.update" if isinstance(event.get("session"), dict):
                wanted = {k: v for k, v in event["session"].items() if k != "avatar"}
                if "avatar" in event["session"]:
                    await self.change_avatar(event["session"]["avatar"])
                event = {**event, "session": wanted}
        await self._send(event)

    async def _send(self, *events: Json) -> None:
        """Tell the model; one that has hung up is told nothing."""
        with contextlib.suppress(ConnectionClosed):
            for event in events:
                await self._socket.send(json.dumps(event))

    def _later(self, *events: Json) -> None:
        task = asyncio.ensure_future(self._send(*events))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self) -> None:
        """A viewer's microphone to the model, as long as the client has no voice of its own."""
        with Listening(self.session, RATE_HZ) as microphone:
            async for data in microphone:
                if self.session.microphone is not None and not self._client_speaks:
                    audio = base64.b64encode(data).decode()
                    await self._send({"type": "input_audio_buffer.append", "audio": audio})

    async def _hear_all(self) -> None:
        try:
            async for text in self._socket:
                event = json.loads(text)
                if isinstance(event, dict):
                    self._hear(event)
        except (ConnectionClosed, ValueError) as error:
            log.warning("session %s: the realtime model is gone: %s", self.session.id, error)
        said = "the realtime model behind this avatar has hung up"
        about = {"code": "upstream_closed", "message": said, "param": None, "event_id": None}
        self.tell("error", error={"type": "server_error", **about})
        self._over.set()

    def _hear(self, event: Json) -> None:
        """Pass on what the model says, and do what it means for the face."""
        told = event
        try:
            told = self._note(event) or event
        except AvatarError as error:
            self.refuse(error)
        self.pass_on(told)
        if event.get("type") == "input_audio_buffer.speech_started" and self._interrupts:
            self._silence(cancel=False)  # by the user's voice the model cancels itself
            self.session.set_mood("listening")

    def _note(self, event: Json) -> Json | None:
        """Take note of what the model says; returns what is told in its place."""
        item = event.get("item_id")
        match event.get("type"):
            case "session.created" | "session.updated":
                return self._note_session(event)
            case "response.output_audio.delta" | "response.audio.delta":
                self._speak(event)
            case "response.output_audio.done" | "response.audio.done" if item in self._items:
                self._waiting.append((str(item), None))
                self._drain()
            case "response.created":
                self._answering = part(event, "response", "id")
            case "response.done":
                self._answered(part(event, "response", "id"))
            case "input_audio_buffer.speech_stopped":
                self.session.set_mood("thinking")
        return None

    def _answered(self, response: object) -> None:
        """What the model said in a response is complete, however it ended."""
        self._answering = None
        mine = [item for item in self._items if self.responses.get(item) == response]
        self._waiting.extend((item, None) for item in mine)
        self._drain()
        if not self._items and self.session.mood == "thinking":
            self.session.set_mood("idle")

    def _note_session(self, event: Json) -> Json:
        session = event.get("session")
        sound = part(session, "audio", "output", "format") or part(session, "output_audio_format")
        self._sound = sound_of(sound)
        turns: Any = part(session, "audio", "input", "turn_detection")
        self._interrupts = part(turns, "interrupt_response") is not False
        event = {**event, "session": {**(session or {}), "avatar": self.described()}}
        if self._created is None:
            self._created = event
        return event

    def _speak(self, event: Json) -> None:
        """Say a piece of the model's voice, unless its item was cut off."""
        item, data = str(event.get("item_id")), sound_in(event, "delta")
        response = str(event.get("response_id", ""))
        if item in self._cut or response in self._cut:
            return
        if self._ahead + len(data) > MOST_AHEAD:
            self._cut.append(item)
            raise ApiError(429, "speech_full", "the model is too far ahead; the rest is not spoken")
        self._items.setdefault(item, _Item(part(event, "content_index") or 0))
        self.responses[item] = response
        self._waiting.append((item, data))
        self._ahead += len(data)
        self._drain()

    def _drain(self) -> None:
        """Hand on to the session what it has room for."""
        speech = self.session.speech
        while self._waiting and speech.buffered_s < AHEAD_S:
            item, data = self._waiting.popleft()
            known = self._items.get(item)
            if known is None:
                continue  # it was complete before
            if known.utterance is None:
                known.utterance = speech.begin(item, self._sound)
            if data is None:
                known.utterance.end()
            else:
                self._ahead -= len(data)
                known.utterance.push(data)

    def _silence(self, *, cancel: bool) -> None:
        """Cut off what is said; `cancel` if the model does not know that it is to stop."""
        if not (self._items or self._answering or self.session.speech.busy):
            return
        self._own_cancel = cancel
        self.session.interrupt()
        self._own_cancel = True

    def follow(self, event: Event) -> None:
        """Translate what the session tells; make room for more when something was spoken."""
        super().follow(event)
        if event.type == "buffer":
            self._drain()
        elif event.type == "text":
            content = [{"type": "input_text", "text": event.data["text"]}]
            item = {"type": "message", "role": "user", "content": content}
            asked = {"type": "conversation.item.create", "item": item}
            self._later(asked, {"type": "response.create"})

    def spoken(self, item: str) -> None:
        """It is over."""
        self._items.pop(item, None)
        self.responses.pop(item, None)

    def cut_off(self, items: dict[str, float]) -> None:
        """Tell the model what was heard of what it said: of some nothing, for it waited here."""
        known, self._items = self._items, {}
        self._waiting.clear()
        self._ahead = 0
        said: list[Json] = []
        if self._answering is not None:
            self._cut.append(self._answering)
            said += [{"type": "response.cancel"}] if self._own_cancel else []
        for item, each in known.items():
            about = {"item_id": item, "content_index": each.content_index}
            ms = int(items.get(item, 0))
            said.append({"type": "conversation.item.truncate", **about, "audio_end_ms": ms})
            self._cut.append(item)
            self.responses.pop(item, None)
        self._later(*said)
