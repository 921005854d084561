"""Sessions over plain HTTP: make, ask, change, interrupt, say a sound file, end; events as SSE."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute

from engine.audio.sound_file import read_voice
from engine.config import MAX_STRENGTH, Strengths
from engine.motion.expression import MAX_PROMPT
from server.errors import ApiError
from server.live.line import Voice
from server.live.session import Session
from server.live.surroundings import SessionOptions
from server.sound.sound_format import SoundFormat
from server.trust.access import grant_of, require
from server.web.http import address_of, read_body, read_json, service_of, session_of
from server.web.routes import Operation, Terms

PENDING_S = 60.0  # a session made here waits so long for its first viewer
MAX_SOUND_BYTES = 16 * 1024 * 1024
KEEP_ALIVE_S = 15.0


class NewSession(BaseModel):
    """POST /api/sessions."""

    portrait_id: str = Field("default", max_length=100)
    prompt: str = Field("", max_length=MAX_PROMPT)
    voice: Voice = "assistant"


class Weights(BaseModel):
    """What each condition of a full-size frame counts: 0 as if it were absent, 1 as it was trained."""

    identity: float = Field(1.0, ge=0, le=MAX_STRENGTH)
    reference: float = Field(1.0, ge=0, le=MAX_STRENGTH)
    control: float = Field(1.0, ge=0, le=MAX_STRENGTH)
    text: float = Field(1.0, ge=0, le=MAX_STRENGTH)


class Changes(BaseModel):
    """PATCH /api/sessions/{id}: what is given is changed from the next frame on."""

    prompt: str | None = Field(None, max_length=MAX_PROMPT)
    portrait_id: str | None = Field(None, max_length=100)
    state: Literal["idle", "listening", "thinking"] | None = None
    strengths: Weights | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(
                "nothing is to be changed; give prompt, portrait_id, state or strengths"
            )
        return self


async def create(request: Request) -> Response:
    """Make a session; its viewer comes by POST /api/offer with this `session_id`."""
    body = await read_json(request, NewSession)
    options = SessionOptions(
        portrait_id=body.portrait_id,
        prompt=body.prompt,
        voice=body.voice,
        expires_s=PENDING_S,
        subject=grant_of(request).subject,
    )
    session = await service_of(request).open_session(options, address_of(request))
    headers = {"Location": f"/api/sessions/{session.id}"}
    return JSONResponse({"session_id": session.id}, 201, headers)


def spoken_session_of(connection: HTTPConnection) -> Session:
    """The session that the path names, if what an assistant says is heard there.

    Raises:
        ApiError: unknown_session, or microphone_only.
    """
    session = session_of(connection)
    if session.line.voice == "microphone":
        said = "this session speaks with its microphone alone: make it with voice assistant or both"
        raise ApiError(409, "microphone_only", said)
    return session


def described(session: Session) -> dict[str, object]:
    """A session as JSON."""
    return {
        "session_id": session.id,
        "state": session.mood,
        "voice": session.line.voice,
        "viewers": len(session.broadcast.outlets),
        "buffered_ms": round(1000 * session.speech.buffered_s),
        "portrait_id": session.portrait_id,
    }


async def show(request: Request) -> Response:
    """What a session does right now."""
    return JSONResponse(described(session_of(request)))


def require_own(request: Request, session: Session) -> None:
    """Let in whose session it is, and who may control any; raises `ApiError` forbidden."""
    if session.subject != grant_of(request).subject:
        require(grant_of(request), "control")


async def change(request: Request) -> Response:
    """Change prompt, portrait, state or strengths of an open session, one's own or with `control`."""
    body = await read_json(request, Changes)
    service, session = service_of(request), session_of(request)
    require_own(request, session)
    answer: dict[str, object] = {}
    if body.strengths is not None and service.worker.engine.config.profile != "sd15":
        raise ApiError(422, "no_strengths", "only the sd15 profile weighs its conditions")
    if body.portrait_id is not None:
        service.find_portrait(body.portrait_id, session.subject)  # all is changed, or nothing
    if body.prompt is not None:
        answer["prompt"] = await service.express(session, body.prompt)
    if body.strengths is not None:
        session.stream.set_prompt(Strengths(**body.strengths.model_dump()))
    if body.portrait_id is not None:
        service.show_portrait(session, body.portrait_id)
    if body.state is not None:
        session.set_mood(body.state)
    return JSONResponse({**described(session), **answer})


async def close(request: Request) -> Response:
    """End a session, one's own or with `control`; ending it again is no error."""
    session = service_of(request).sessions.get(request.path_params["id"])
    if session is not None:  # closing twice is no mistake: a page that leaves does it
        require_own(request, session)
        await session.close("client")
    return Response(status_code=204)


async def interrupt(request: Request) -> Response:
    """Cut off what is being said; answers with what was really played."""
    utterance, position_ms = session_of(request).interrupt()
    return JSONResponse({"utterance": utterance, "position_ms": round(position_ms, 1)})


async def say(request: Request) -> Response:
    """Say a sound file of any usual kind, up to a minute; `?utterance=` names it.

    It is queued behind what is being said; several at a time are queued as they were read.
    """
    session = spoken_session_of(request)
    data = await read_body(request, MAX_SOUND_BYTES)
    pcm = await asyncio.to_thread(read_voice, data)
    session.speech.check_room(len(pcm) / 48_000)
    utterance = session.speech.begin(request.query_params.get("utterance"), SoundFormat(48_000))
    utterance.push(pcm.tobytes())
    utterance.end()
    body = {"utterance": utterance.id, "duration_ms": round(1000 * len(pcm) / 48_000)}
    return JSONResponse(body, 202)


async def events(request: Request) -> Response:
    """The session's events as they happen, server-sent; the session is kept while somebody listens.

    The first is `session`. A reader that is too slow loses the oldest, and is told `events_missed`.
    """
    session = session_of(request)
    return StreamingResponse(
        _stream(session), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _stream(session: Session) -> AsyncIterator[str]:
    missed = 0
    with session.events.listen() as listener, session.hold():
        yield _sent({"type": "session", **described(session)})
        while (event := await listener.next(KEEP_ALIVE_S)) is not None or not listener.over:
            if listener.missed > missed:
                missed = listener.missed
                yield _sent(told_missed(missed))
            yield ": still here\n\n" if event is None else _sent(event.message())


def told_missed(count: int) -> dict[str, object]:
    """What is said to who reads events too slowly."""
    said = f"{count} events were not read in time and are gone"
    return {"type": "error", "code": "events_missed", "message": said}


def _sent(message: Mapping[str, object]) -> str:
    return f"event: {message['type']}\ndata: {json.dumps(message)}\n\n"


_SESSION = "/api/sessions/{id}"
_SHOWN = ("session_id", "state", "voice", "viewers", "buffered_ms", "portrait_id")
ROUTES: list[BaseRoute] = [
    Operation("/api/sessions", create, "control", POST=Terms({201: ("session_id",)}, NewSession)),
    Operation(_SESSION, show, "view", GET=Terms({200: _SHOWN})),
    Operation(_SESSION, change, "view", PATCH=Terms({200: _SHOWN}, Changes)),
    Operation(_SESSION, close, "view", DELETE=Terms({204: None})),
    Operation(
        _SESSION + "/interrupt",
        interrupt,
        "control",
        POST=Terms({200: ("utterance", "position_ms")}),
    ),
    Operation(
        _SESSION + "/say",
        say,
        "speak",
        POST=Terms({202: ("utterance", "duration_ms")}, "audio/*", names=("utterance",)),
    ),
    Operation(_SESSION + "/events", events, "view", GET=Terms({200: "text/event-stream"})),
]
