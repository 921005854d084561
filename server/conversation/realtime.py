"""What is said in the shape of OpenAI's Realtime API: its events, in and out of one session.

There are two kinds of conversation: with a model behind the avatar (`server.conversation.upstream`), and without
(`server.conversation.own_voice`).
"""

from __future__ import annotations

import base64
import binascii
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.errors import AvatarError
from engine.motion.expression import MAX_PROMPT
from server.errors import ApiError, refusal
from server.live.events import Event
from server.live.session import Session
from server.service import AvatarService
from server.sound.sound_format import SoundFormat
from server.web.http import check

RATE_HZ = 24_000
Json = dict[str, Any]
Sink = Callable[[Json], None]
_SERVER_ERROR = {"type": "server_error", "param": None, "event_id": None}


class AvatarChanges(BaseModel):
    """`session.avatar` of a `session.update`: ours beside what the API has."""

    prompt: str | None = Field(default=None, max_length=MAX_PROMPT)
    portrait_id: str | None = Field(default=None, max_length=100)
    state: Literal["idle", "listening", "thinking"] | None = None


def new_id(kind: str) -> str:
    """An id as the API has them: `event_...`, `item_...`."""
    return f"{kind}_{secrets.token_urlsafe(12)}"


def sound_of(name: object, rate_hz: int = RATE_HZ) -> SoundFormat:
    """The format that an `audio.input.format` or an older `input_audio_format` names.

    Raises:
        ApiError: bad_request.
        SpeechRefused: bad_format.
    """
    if isinstance(name, Mapping):
        rate = name.get("rate", rate_hz)
        name, rate_hz = name.get("type"), rate if isinstance(rate, int) else rate_hz
    match name:
        case "audio/pcm" | "pcm16" | None:
            return SoundFormat(rate_hz)
        case "audio/pcmu" | "g711_ulaw":
            return SoundFormat(8000, "ulaw")
        case "audio/pcma" | "g711_alaw":
            return SoundFormat(8000, "alaw")
    raise ApiError(422, "bad_request", f"format {name!r} is not known; audio/pcm, pcmu or pcma")


def sound_in(event: Json, name: str) -> bytes:
    """The base64 sound of an event; raises `ApiError` bad_request."""
    try:
        return base64.b64decode(event.get(name, ""), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ApiError(422, "bad_request", f"{name}: not base64") from None


def part(session: object, *path: str) -> Any:
    """What lies under `path` in a session object; None if nothing does."""
    for name in path:
        session = session.get(name) if isinstance(session, Mapping) else None
    return session


class Conversation(ABC):
    """What the realtime clients of one session say and are told.

    Every event of the session is told: in the API's words where it has some, else as `portraittalk.*`.
    """

    def __init__(self, session: Session, service: AvatarService) -> None:
        self.session, self._service = session, service
        self.sinks: list[Sink] = []
        self.responses: dict[str, str] = {}  # of what is spoken here: item -> response
        self._end = session.events.subscribe(self.follow)

    def attach(self, sink: Sink) -> Callable[[], None]:
        """Tell `sink` from now on; returns what ends it."""
        self.sinks.append(sink)
        return lambda: self.sinks.remove(sink) if sink in self.sinks else None

    async def ended(self) -> None:
        """Wait until there is nobody to talk to: the session, or what is behind it, has ended."""
        with self.session.events.listen() as listener:
            async for _ in listener:
                pass

    async def close(self) -> None:
        """Hear of the session no more. May be called again."""
        self._end()

    def pass_on(self, event: Json) -> None:
        """Tell every client an event."""
        for sink in list(self.sinks):
            sink(event)

    def tell(self, type: str, **fields: Any) -> None:
        """Tell every client something of our own."""
        self.pass_on({"type": type, "event_id": new_id("event"), **fields})

    async def take(self, event: Json) -> None:
        """Do what a client says; what cannot be done is said in an `error`."""
        try:
            if not isinstance(event.get("type"), str):
                raise ApiError(422, "bad_request", "an event is a JSON object with a type")
            await self.do(event)
        except AvatarError as error:
            self.refuse(error, event.get("event_id"))

    def refuse(self, error: AvatarError, event_id: object = None) -> None:
        """Say that something cannot be done."""
        api = refusal(error)
        said = {"type": "invalid_request_error", "code": api.code, "message": str(api)}
        self.tell("error", error={**said, "param": None, "event_id": event_id})

    @abstractmethod
    async def do(self, event: Json) -> None:
        """Do what a client says; raises `AvatarError`."""

    def follow(self, event: Event) -> None:
        """Translate what the session tells."""
        item = str(event.data.get("utterance") or "")
        position = event.data.get("position_ms", 0)
        about = {"response_id": self.responses.get(item, ""), "item_id": item or None}
        match event.type:
            case "speaking_started" if item in self.responses:
                self.tell("output_audio_buffer.started", **about)
            case "speaking_stopped" if item in self.responses:
                if not event.data["interrupted"]:
                    self.tell("output_audio_buffer.stopped", **about, audio_end_ms=position)
                    self.spoken(item)
            case "interrupted":
                self.tell("output_audio_buffer.cleared", **about, audio_end_ms=position)
                cut = {item: position} if item in self.responses else {}
                for dropped in event.data["dropped"]:
                    cut |= {dropped: 0} if dropped in self.responses else {}
                self.cut_off(cut)
            case "error":
                self.tell("error", error={**_SERVER_ERROR, **event.data})
            case _:
                self.tell(f"portraittalk.{event.type}", **event.data)

    @abstractmethod
    def spoken(self, item: str) -> None:
        """An item of ours was spoken to its end."""

    @abstractmethod
    def cut_off(self, items: dict[str, float]) -> None:
        """Items of ours were cut off, after so many ms of them were played."""

    async def change_avatar(self, wanted: object) -> None:
        """Do what `session.avatar` asks for; raises `AvatarError`."""
        asked = check(wanted, AvatarChanges)
        if asked.portrait_id is not None:
            self._service.show_portrait(self.session, asked.portrait_id)
        if asked.prompt is not None:
            await self._service.express(self.session, asked.prompt)
        if asked.state is not None:
            self.session.set_mood(asked.state)

    def described(self) -> Json:
        """What a session object says of the avatar."""
        session = self.session
        about = {"session_id": session.id, "portrait_id": session.portrait_id}
        return {**about, "state": session.mood}
