"""Pipecat's SmallWebRTC: offers as its clients send them, sessions as its runner starts them.

Beside an offer of our own page (`server.doors.offer`) on the same address; it is known by `pc_id`,
`restart_pc` or `request_data`. `pc_id` stands for the session: an offer with it is another one of
the same connection, with `restart_pc` the first of a new one in its place. `request_data`, and the
body of `/start`, may have `session_id` (join a session made by another door), `portrait_id`,
`prompt` and `voice`, which is `assistant` if nothing is said.
"""

from __future__ import annotations

import time
from typing import Literal

from pydantic import AliasChoices, BaseModel, Field
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from engine.motion.expression import MAX_PROMPT
from server.doors.rtvi import Rtvi
from server.doors.sessions import PENDING_S
from server.errors import ApiError
from server.live.line import Voice
from server.live.session import Session
from server.live.surroundings import SessionOptions
from server.service import MakeViewer
from server.trust.access import grant_of, require
from server.web.http import address_of, check, read_raw, service_of
from server.web.routes import Operation, Terms
from server.webrtc.ice import ice_servers
from server.webrtc.signaling import add_candidate
from server.webrtc.viewer import Viewer

MARKS = {"pc_id", "restart_pc", "request_data", "requestData"}


class RequestData(BaseModel):
    """What a client says for its bot; other names in it are somebody else's business."""

    session_id: str | None = Field(default=None, max_length=100)
    portrait_id: str = Field(default="default", max_length=100)
    prompt: str = Field(default="", max_length=MAX_PROMPT)
    voice: Voice = "assistant"

    def options(self, request: Request, expires_s: float | None = None) -> SessionOptions:
        """As options of a new session."""
        return SessionOptions(
            portrait_id=self.portrait_id,
            prompt=self.prompt,
            voice=self.voice,
            expires_s=expires_s,
            subject=grant_of(request).subject,
        )


class StartBody(RequestData):
    """POST /start: the data lie in it, or in its `body`."""

    body: RequestData | None = None


class OfferBody(BaseModel):
    """POST /api/offer."""

    sdp: str
    type: Literal["offer"]
    pc_id: str | None = Field(default=None, max_length=100)
    restart_pc: bool | None = False
    request_data: RequestData | None = Field(
        default=None, validation_alias=AliasChoices("request_data", "requestData")
    )


class Candidate(BaseModel):
    """One ICE candidate."""

    candidate: str = Field(max_length=1000)
    sdp_mid: str | None = None
    sdp_mline_index: int | None = None


class CandidatesBody(BaseModel):
    """PATCH /api/offer."""

    pc_id: str = Field(max_length=100)
    candidates: list[Candidate] = Field(max_length=100)


def meant(raw: object) -> bool:
    """Whether the body of an offer, or of candidates, is one of Pipecat's clients."""
    return isinstance(raw, dict) and not MARKS.isdisjoint(raw)


async def offer(request: Request, raw: object) -> Response:
    """Answer an offer."""
    require(grant_of(request), "speak")
    body = check(raw, OfferBody)
    service, make = service_of(request), _maker(request)
    data = body.request_data or RequestData()
    known = service.sessions.by_token(body.pc_id) if body.pc_id is not None else None
    session_id = request.path_params.get("id") or data.session_id
    if known is not None and not body.restart_pc and service.connected(known):
        session, sdp = known, await service.find_viewer(known.id).renegotiate(body.sdp)
    elif known is not None:
        session, sdp = await service.resume(known.token, body.sdp, make)
    elif session_id is not None:
        session, sdp = await service.join(session_id, body.sdp, make)
    else:
        session, sdp = await service.offer(
            body.sdp, data.options(request), address_of(request), make
        )
    answer = {"sdp": sdp, "type": "answer", "pc_id": session.token, "session_id": session.id}
    return JSONResponse(answer)


async def candidates(request: Request, raw: object) -> Response:
    """Trickled ICE candidates of a connection."""
    require(grant_of(request), "speak")
    body, service = check(raw, CandidatesBody), service_of(request)
    session = service.sessions.by_token(body.pc_id)
    if session is None:
        raise ApiError(404, "unknown_session", "this connection is not known here any more")
    viewer = service.find_viewer(session.id)
    for each in body.candidates:
        await add_candidate(viewer.pc, each.candidate, each.sdp_mid, each.sdp_mline_index)
    return JSONResponse({"status": "success"})


def _maker(connection: HTTPConnection) -> MakeViewer:
    """Makes viewers that speak RTVI."""

    def make(session: Session) -> Viewer:
        rtvi = Rtvi(session, service_of(connection))
        viewer = Viewer(session, channels=rtvi.take, on_leave=rtvi.leave)
        viewer.outlet.taps.append(rtvi.heard)
        return viewer

    return make


async def start(request: Request) -> Response:
    """Make a session for a client that will come, as `startBotAndConnect` asks."""
    body, service = check(await read_raw(request), StartBody), service_of(request)
    data = body.body or body
    if data.session_id is not None:
        session = service.find_session(data.session_id)
    else:
        session = await service.open_session(data.options(request, PENDING_S), address_of(request))
    servers = ice_servers(service.settings, grant_of(request).subject, time.time())
    return JSONResponse({"sessionId": session.id, "iceConfig": {"iceServers": servers}})


async def session_offer(request: Request) -> Response:
    """An offer for a session that `/start` has made."""
    return await offer(request, await read_raw(request))


async def session_candidates(request: Request) -> Response:
    """Candidates for a session that `/start` has made."""
    return await candidates(request, await read_raw(request))


async def status(request: Request) -> Response:
    """What Pipecat's runner says of itself."""
    return JSONResponse({"status": "ready", "transports": ["webrtc"]})


_SESSION = "/sessions/{id}/api/offer"
ROUTES: list[BaseRoute] = [
    Operation("/start", start, "speak", POST=Terms({200: ("sessionId", "iceConfig")}, StartBody)),
    Operation("/status", status, None, GET=Terms({200: ("status", "transports")})),
    Operation(_SESSION, session_offer, "speak", POST=Terms({200: ("sdp", "pc_id")}, OfferBody)),
    Operation(
        _SESSION, session_candidates, "speak", PATCH=Terms({200: ("status",)}, CandidatesBody)
    ),
]
