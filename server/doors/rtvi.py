"""RTVI, the messages between Pipecat's clients and a bot, over a viewer's data channel.

What a session tells comes as RTVI's own messages where it has some, and every event as it is in a
`server-message`. What a client may ask with `sendClientRequest(t, d)`:

| t | d | answer |
| --- | --- | --- |
| `session` | | the session's id, state, viewers, portrait |
| `interrupt` | | `utterance`, `position_ms`: what was cut off, and where |
| `prompt` | `{"prompt"}` | `prompt` as it was understood |
| `portrait` | `{"portrait_id"}` | the session |
| `state` | `{"state"}`: idle, listening or thinking | the session |
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

from aiortc import RTCDataChannel
from pydantic import BaseModel, Field

from engine.errors import AvatarError
from engine.motion.expression import MAX_PROMPT
from server.conversation.turn_detection import TurnDetector, loudness
from server.doors.sessions import described
from server.errors import ApiError
from server.live.events import Event
from server.live.outlet import Heard
from server.live.session import Session
from server.service import AvatarService
from server.sound.intake import Pcm48
from server.web.http import check
from server.webrtc.control import DataChannel

LABEL = "rtvi-ai"
VERSION = "2.1.0"
MAX_MESSAGE = 64 * 1024  # what Pipecat's client itself takes for the limit
LEVEL_S = 0.15  # between two levels of the same voice
NO_MODEL = "no language model is attached here: this server is the face, not the brain"


class Said(BaseModel):
    """A message of a client."""

    type: str = Field(max_length=100)
    id: str = Field("", max_length=100)
    label: Literal["rtvi-ai"]
    data: Any = None


class Asked(BaseModel):
    """Data of a `client-message`."""

    class Wishes(BaseModel):
        """What may be in `d`."""

        prompt: str | None = Field(default=None, max_length=MAX_PROMPT)
        portrait_id: str | None = Field(default=None, max_length=100)
        state: Literal["idle", "listening", "thinking"] | None = None

    t: str = Field(max_length=100)
    d: Wishes | None = None


class Text(BaseModel):
    """Data of `send-text`."""

    class Options(BaseModel):
        """How it is to be taken."""

        run_immediately: bool = True

    content: str
    options: Options = Options()


class Rtvi:
    """One client on one session."""

    def __init__(self, session: Session, service: AvatarService) -> None:
        self._session, self._service = session, service
        self._channel = DataChannel(self._on_message, limit=MAX_MESSAGE)
        self._turns = TurnDetector()
        self._levels: dict[str, tuple[float, float]] = {}  # the last of each voice, and when
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends = [
            session.events.subscribe(self._tell),
            session.line.overhear(self._overhear),
        ]

    def take(self, channel: RTCDataChannel) -> bool:
        """Talk over `channel`, which the client has opened."""
        self._channel.attach(channel)
        return True

    def heard(self, heard: Heard) -> None:
        """Take note of sound that goes to the client."""
        self._level("bot-audio-level", heard.pcm)

    def leave(self, reason: str) -> bool:
        """Say that the connection ends; a client that made a new one of itself is told nothing."""
        for end in self._ends:
            end()
        if reason != "resumed":
            self._channel.send({"type": "signalling", "message": {"type": "peerLeft"}})
        return self._channel.open

    def _send(self, type: str, data: object = None, id: str = "") -> None:
        body = {"label": LABEL, "type": type}
        body |= {"id": id} if id else {}
        self._channel.send({**body, "data": data} if data is not None else body)

    def _tell(self, event: Event) -> None:
        """Translate what the session tells."""
        data = event.data
        match event.type:
            case "speaking_started":
                self._send("bot-started-speaking")
            case "speaking_stopped":
                self._send("bot-stopped-speaking")
            case "interrupted":
                self._send("bot-interrupted")
            case "caption":
                word = {"text": data["text"], "aggregated_by": "word", "output_type": "word"}
                self._send(
                    "bot-output", {**word, "will_be_spoken": True, "spoken_status": "completed"}
                )
                self._send("bot-tts-text", {"text": data["text"]})
            case "stats":
                seconds = [
                    {"processor": f"portraittalk {leg}", "value": ms / 1000}
                    for leg, ms in data["legs_ms"].items()
                ]
                self._send("metrics", {"processing": seconds})
            case "error":
                self._send("error", {"error": data["message"], "fatal": False})
            case "closing" if data["reason"] in ("full", "failed"):
                self._send("error", {"error": f"the session ends: {data['reason']}", "fatal": True})
        self._send("server-message", event.message())

    def _overhear(self, pcm: Pcm48) -> None:
        """Listen to the client's microphone (N,)."""
        for turn in self._turns.push(pcm):
            self._send("user-started-speaking" if turn.speaking else "user-stopped-speaking")
        self._level("user-audio-level", pcm)

    def _level(self, type: str, pcm: Pcm48) -> None:
        before, at = self._levels.get(type, (0.0, 0.0))
        now = time.monotonic()
        if now - at < LEVEL_S:
            return
        level = round(loudness(pcm), 3)
        if level or before:
            self._send(type, {"value": level})
        self._levels[type] = (level, now)

    def _on_message(self, body: dict[str, Any]) -> None:
        if body.get("label") != LABEL:
            return  # the transport's own signalling; it asks for nothing
        task = asyncio.get_running_loop().create_task(self._answer(body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, body: dict[str, Any]) -> None:
        """Do what the client asks; what cannot be done is said to it."""
        try:
            await self._do(check(body, Said))
        except AvatarError as error:
            self._send("error-response", {"error": str(error)}, str(body.get("id", ""))[:100])

    async def _do(self, said: Said) -> None:
        match said.type:
            case "client-ready":
                self._ready(said)
            case "client-message":
                asked = check(said.data, Asked)
                answer = await self._grant(asked.t, asked.d or Asked.Wishes())
                self._send("server-response", {"t": asked.t, "d": answer}, said.id)
            case "send-text":
                self._type(check(said.data, Text))
            case "disconnect-bot":
                await self._session.close("client")
            case "append-to-context":
                raise ApiError(501, "no_model", NO_MODEL)
            case _:
                raise ApiError(422, "bad_request", f"{said.type} is not understood here")

    def _ready(self, said: Said) -> None:
        """Answer the handshake; a client of another major version is warned, and served."""
        version = said.data.get("version") if isinstance(said.data, dict) else None
        if str(version).partition(".")[0] != VERSION.partition(".")[0]:
            warned = f"this server speaks RTVI {VERSION}, the client {version}; some may not work"
            self._send("error-response", {"error": warned}, said.id)
        about = {"library": "portraittalk"}
        self._send("bot-ready", {"version": VERSION, "about": about}, said.id)
        self._send("server-message", {"type": "session", **described(self._session)})

    async def _grant(self, wish: str, asked: Asked.Wishes) -> dict[str, object]:
        session, service = self._session, self._service
        match wish:
            case "session":
                return described(session)
            case "interrupt":
                utterance, position_ms = session.interrupt()
                return {"utterance": utterance, "position_ms": round(position_ms, 1)}
            case "prompt" if asked.prompt is not None:
                return {"prompt": await service.express(session, asked.prompt)}
            case "portrait" if asked.portrait_id is not None:
                service.show_portrait(session, asked.portrait_id)
                return described(session)
            case "state" if asked.state is not None:
                session.set_mood(asked.state)
                return described(session)
        raise ApiError(422, "bad_request", f"{wish} is not understood here, or its data lack")

    def _type(self, text: Text) -> None:
        """Hand typed text to the assistant behind another door; raises `ApiError` no_model."""
        if not self._session.holds:
            raise ApiError(501, "no_model", NO_MODEL)
        if text.options.run_immediately and self._session.speech.busy:
            self._session.interrupt()
        self._session.events.emit("text", text=text.content)
