"""A viewer's WebRTC offer, as our own page sends it: a session is opened, or resumed.

An offer of Pipecat's clients comes to the same address; `server.doors.smallwebrtc` answers it.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from engine.motion.expression import MAX_PROMPT
from server.doors import smallwebrtc
from server.doors.one_way import watch
from server.live.line import Voice
from server.live.surroundings import SessionOptions
from server.service import MakeViewer
from server.trust.access import grant_of
from server.web.http import address_of, check, read_raw, service_of
from server.web.routes import Operation, Terms
from server.webrtc.signaling import add_candidate
from server.webrtc.viewer import Viewer


class OfferBody(BaseModel):
    """POST /api/offer.

    `session_id` joins a session that was made before; `resume` (a token of an earlier answer) takes the
    place of a viewer that was lost. Who may only view is not heard, and takes nobody's place.
    """

    sdp: str
    type: Literal["offer"]
    portrait_id: str = Field("default", max_length=100)
    prompt: str = Field("", max_length=MAX_PROMPT)
    voice: Voice = "both"
    session_id: str | None = Field(None, max_length=100)
    resume: str | None = Field(None, max_length=100)


class Candidate(BaseModel):
    """One ICE candidate, as a browser writes it."""

    candidate: str = Field(max_length=1000)
    sdpMid: str | None = None
    sdpMLineIndex: int | None = None


class CandidatesBody(BaseModel):
    """PATCH /api/offer."""

    session_id: str
    candidates: list[Candidate] = Field(max_length=100)


async def offer(request: Request) -> Response:
    """Answer an offer."""
    raw = await read_raw(request)
    if smallwebrtc.meant(raw):
        return await smallwebrtc.offer(request, raw)
    body, service, grant = check(raw, OfferBody), service_of(request), grant_of(request)
    heard = "speak" in grant.allows
    make: MakeViewer = Viewer if heard else partial(Viewer, role="watch")
    if body.resume is not None:
        session, sdp = await service.resume(body.resume, body.sdp, make)
    elif body.session_id is not None and heard:
        session, sdp = await service.join(body.session_id, body.sdp)
    elif body.session_id is not None:
        session = service.find_session(body.session_id)
        _, sdp = await watch(service, session, body.sdp, address_of(request))
    else:
        options = SessionOptions(
            portrait_id=body.portrait_id,
            prompt=body.prompt,
            voice=body.voice,
            subject=grant.subject,
        )
        session, sdp = await service.offer(body.sdp, options, address_of(request), make)
    answer = {"sdp": sdp, "type": "answer", "session_id": session.id, "voice": session.line.voice}
    if heard or body.session_id is None:  # who has it may take the viewer's place
        answer["resume"] = session.token
    return JSONResponse(answer)


async def candidates(request: Request) -> Response:
    """Trickled ICE candidates of an open session."""
    raw = await read_raw(request)
    if smallwebrtc.meant(raw):
        return await smallwebrtc.candidates(request, raw)
    body = check(raw, CandidatesBody)
    if "speak" not in grant_of(request).allows:  # its calls come all the same
        return Response(status_code=204)
    viewer = service_of(request).find_viewer(body.session_id)
    for each in body.candidates:
        await add_candidate(viewer.pc, each.candidate, each.sdpMid, each.sdpMLineIndex)
    return Response(status_code=204)


_ANSWER = {200: ("sdp", "type", "session_id")}
ROUTES: list[BaseRoute] = [
    Operation("/api/offer", offer, "view", POST=Terms(_ANSWER, (OfferBody, smallwebrtc.OfferBody))),
    Operation(
        "/api/offer",
        candidates,
        "view",
        PATCH=Terms({200: ("status",), 204: None}, (CandidatesBody, smallwebrtc.CandidatesBody)),
    ),
]
